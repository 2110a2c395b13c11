-- A call has ended: its slots are free, and rates get back what it took too much.
-- KEYS: tombstone of a take that was given up, then each rule's bucket or slots.
-- ARGV: call, now (microseconds, by the caller's clock), 1: nobody knows whether the take was done, or will be; then for each
-- rule: 'r', what it took too much (microseconds; below 0: too little); or 's', 0.

local MOST = 9007199254740991
local SLACK_MS = 60000
local TOMBSTONE_SECONDS = 3600

local function whole(number)
  return string.format('%.0f', number)
end

local now = tonumber(ARGV[2])
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], '', 'EX', TOMBSTONE_SECONDS)
end
for number = 2, #KEYS do
  local key, at = KEYS[number], 3 + (number - 2) * 2
  if ARGV[at + 1] == 's' then
    redis.call('HDEL', key, ARGV[1])
  else
    local full = math.max(tonumber(redis.call('GET', key) or '0'), now) - tonumber(ARGV[at + 2])
    if full <= now then
      redis.call('DEL', key)
    else
      full = math.min(full, MOST)
      redis.call('SET', key, whole(full), 'PX', whole(math.ceil((full - now) / 1000) + SLACK_MS))
    end
  end
end
return 1
