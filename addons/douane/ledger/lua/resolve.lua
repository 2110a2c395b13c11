-- Book what a call came to in place of what it holds; once.
-- KEYS: the call's hold, holds that are open, index of accounts, outbox, then its accounts.
-- ARGV: call, token of this request, now (seconds), usd, tokens, calls, usd is a floor (1 or 0), tokens are, then the
-- accounts' suffixes.
-- Returns 1: it held something, 0: nothing to resolve; or {suffix, ...}: it holds these, say their keys.

local HOLD, OPEN, INDEX, OUTBOX, FIRST, GIVEN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], 5, 8
local call, mark, now = ARGV[1], '=' .. ARGV[2], ARGV[3]

local held = redis.call('GET', HOLD)
if not held then
  redis.call('SET', HOLD, '=', 'EX', TOMBSTONE_SECONDS)
  return 0
end
if string.sub(held, 1, 1) == '=' then
  return held == mark and 1 or 0  -- 1: the same request again, whose answer was lost
end

local keys, all, missing = {}, {}, false
for number = FIRST, #KEYS do
  keys[ARGV[GIVEN + number - FIRST + 1]] = KEYS[number]
end
for suffix in string.gmatch(held, '(%S+) %d+') do
  all[#all + 1] = suffix
  missing = missing or not keys[suffix]
end
if missing then
  return all
end

local spent = {usd = tonumber(ARGV[4]), tokens = tonumber(ARGV[5]), calls = tonumber(ARGV[6])}
local floor = {usd = ARGV[7] == '1', tokens = ARGV[8] == '1', calls = false}
for suffix, amount in string.gmatch(held, '(%S+) (%d+)') do
  local page, unit = look(keys[suffix], suffix), string.match(suffix, '^%a+')
  if page.known then  -- else its window ended 35 days ago
    local more = math.max(spent[unit], floor[unit] and tonumber(amount) or 0)
    page.reserved = math.max(page.reserved - tonumber(amount), 0)
    page.captured = math.min(page.captured + more, MOST)
    alert(page, OUTBOX, now, false)
    write(page, INDEX)
  end
end
redis.call('SET', HOLD, mark, 'EX', TOMBSTONE_SECONDS)
redis.call('HDEL', OPEN, call)
return 1
