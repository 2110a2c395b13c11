-- Whoever holds slots lives.
-- KEYS: leases of those who hold slots, then the slots they hold. ARGV: who, lease (ms).

local SLOTS_MS = 3600000
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', clock + tonumber(ARGV[2])))
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, SLOTS_MS)
end
return 1
