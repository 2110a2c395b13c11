-- What reserve.lua and resolve.lua share; it stands before each of them.
--
-- Lua's numbers are doubles. An amount or a limit is at most 2^52 and a sum is clamped at 2^53 - 1, so every value that is
-- stored is exact, and a comparison of a limit with three such values is right even where their sum is not. Numbers leave by
-- whole() alone: tostring() would write 1e+15. Products are not formed here: thresholds of alerts come ready from the gateway.

local MOST = 9007199254740991
local TOMBSTONE_SECONDS = 3600
local KEEP_SECONDS = 35 * 86400

local function whole(number)
  return string.format('%.0f', number)
end

-- An account as this script leaves it; fields of its hash: c(aptured) r(eserved) l(imit) a(lerts: SHARE=THRESHOLD,...)
-- d(one: the highest share somebody was told of) e(nd).
local function look(key, suffix)
  local found = redis.call('HMGET', key, 'c', 'r', 'l', 'a', 'd', 'e')
  return {key = key, suffix = suffix, known = found[1] and true or false, captured = tonumber(found[1] or '0'),
          reserved = tonumber(found[2] or '0'), limit = found[3] or '', alerts = found[4] or '',
          told = tonumber(found[5] or '0'), ending = found[6] or ''}
end

-- Put alerts that are due into the outbox. refused: a call did not fit, and the limit is as good as reached.
local function alert(page, outbox, now, refused)
  for share, threshold in string.gmatch(page.alerts, '(%d+)=(%d+)') do
    if tonumber(share) > page.told and (page.captured >= tonumber(threshold) or (refused and tonumber(share) <= 1000)) then
      local ending = page.ending == '' and '-' or page.ending
      redis.call('ZADD', outbox, 'NX', 0, table.concat({share, now, whole(page.captured), page.limit, ending, page.suffix}, ' '))
      page.told = tonumber(share)
    end
  end
end

-- Write an account. at: the moment of the call that opened it, where it is new.
local function write(page, index, at)
  redis.call('HSET', page.key, 'c', whole(page.captured), 'r', whole(page.reserved), 'l', page.limit, 'a', page.alerts,
             'd', whole(page.told), 'e', page.ending)
  if not page.known then
    local ending = tonumber(page.ending)
    if ending then
      redis.call('EXPIRE', page.key, whole(math.max(ending - at, 0) + KEEP_SECONDS))
    end
    redis.call('ZADD', index, ending and page.ending or '+inf', page.suffix)
    page.known = true
  end
end
