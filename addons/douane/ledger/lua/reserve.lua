-- Hold amounts in all accounts of a call, or in none.
-- KEYS: the call's hold, holds that are open, index of accounts, outbox, then the accounts.
-- ARGV: call, owner, now (seconds), when the call was made, then for each account: suffix, amount, limit, hard (1 or 0), alerts, end.
-- Returns {0, number of an account that is over, ...}, or {1, number of the account that refuses, captured, reserved}.

local HOLD, OPEN, INDEX, OUTBOX, FIRST, EACH = KEYS[1], KEYS[2], KEYS[3], KEYS[4], 5, 6
local call, owner, now, made, GIVEN = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), 4

local held = redis.call('GET', HOLD)
if held and string.sub(held, 1, 1) == '=' then
  return {0}  -- it was resolved, maybe before it was reserved: a late one holds nothing
end
local has, order = {}, {}
for suffix, amount in string.gmatch(held or '', '(%S+) (%d+)') do
  has[suffix] = tonumber(amount)
  order[#order + 1] = suffix
end

local pages, over = {}, {0}
for number = 0, #KEYS - FIRST do
  local at = GIVEN + number * EACH
  local suffix, limit = ARGV[at + 1], tonumber(ARGV[at + 3])
  local page = look(KEYS[FIRST + number], suffix)
  page.more = math.max(0, tonumber(ARGV[at + 2]) - (has[suffix] or 0))
  pages[#pages + 1] = page
  local full = page.more + page.captured + page.reserved > limit
  if full and ARGV[at + 4] == '1' then
    if ARGV[at + 5] ~= '' then
      page.limit, page.alerts, page.ending = ARGV[at + 3], ARGV[at + 5], ARGV[at + 6]
      alert(page, OUTBOX, now, true)
      write(page, INDEX, made)
    end
    return {1, number, whole(page.captured), whole(page.reserved)}
  elseif full then
    over[#over + 1] = number
  end
end

for number, page in ipairs(pages) do
  local at = GIVEN + (number - 1) * EACH
  page.reserved = math.min(page.reserved + page.more, MOST)
  page.limit, page.alerts, page.ending = ARGV[at + 3], ARGV[at + 5], ARGV[at + 6]
  if has[page.suffix] == nil then
    order[#order + 1] = page.suffix
  end
  has[page.suffix] = (has[page.suffix] or 0) + page.more
  if not page.known then
    redis.call('ZREMRANGEBYSCORE', INDEX, '-inf', whole(made - KEEP_SECONDS))
  end
  alert(page, OUTBOX, now, false)
  write(page, INDEX, made)
end
local lines = {}
for _, suffix in ipairs(order) do
  lines[#lines + 1] = suffix .. ' ' .. whole(has[suffix])
end
redis.call('SET', HOLD, table.concat(lines, ' '))
if not held then
  redis.call('HSET', OPEN, call, now .. ' ' .. owner)
end
return over
