-- Take from all rules, or from none.
-- KEYS: tombstone of a take that was given up, leases of those who hold slots, then each rule's bucket or slots.
-- ARGV: call, who (owner and life), now (microseconds, by the caller's clock), lease (ms), then for each rule: 'r', what must
-- be left, what is taken (microseconds); or 's', limit, 0.
-- Returns {}, or {number of the rule that does not fit, when its bucket is full}. Buckets are one number each, at most 2^53 - 1:
-- the moment at which they are full, written by %.0f, since tostring() would write 1e+15.

local MOST = 9007199254740991
local SLACK_MS = 60000  -- clocks of gateways differ by less
local SLOTS_MS = 3600000

local function whole(number)
  return string.format('%.0f', number)
end

if redis.call('EXISTS', KEYS[1]) == 1 then
  return {}
end
local call, me, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Whether all slots are taken; those of the dead are freed.
local function taken(key, limit)
  if redis.call('HLEN', key) < limit then
    return false
  end
  local all, lives = redis.call('HGETALL', key), {[me] = true}
  for at = 1, #all, 2 do
    local who = all[at + 1]
    if lives[who] == nil then
      lives[who] = tonumber(redis.call('HGET', KEYS[2], who) or '0') > clock
      if not lives[who] then
        redis.call('HDEL', KEYS[2], who)
      end
    end
    if not lives[who] then
      redis.call('HDEL', key, all[at])
    end
  end
  return redis.call('HLEN', key) >= limit
end

local fills, slots = {}, {}
for number = 0, #KEYS - 3 do
  local key, at = KEYS[3 + number], 4 + number * 3
  local most, cost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if ARGV[at + 1] == 'r' then
    local full = math.max(fills[key] or tonumber(redis.call('GET', key) or '0'), now)
    if full - now > most then
      return {number, whole(full)}
    end
    fills[key] = math.min(full + cost, MOST)
  else
    if taken(key, most) then
      return {number, '0'}
    end
    slots[#slots + 1] = key
  end
end
for key, full in pairs(fills) do
  redis.call('SET', key, whole(full), 'PX', whole(math.ceil((full - now) / 1000) + SLACK_MS))
end
for _, key in ipairs(slots) do
  redis.call('HSETNX', key, call, me)
  redis.call('PEXPIRE', key, SLOTS_MS)
end
if #slots > 0 then
  redis.call('HSET', KEYS[2], me, whole(clock + tonumber(ARGV[4])))
  redis.call('PEXPIRE', KEYS[2], SLOTS_MS)
end
return {}
