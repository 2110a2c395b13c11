-- Alerts that nobody is at, which are the caller's until then. KEYS: outbox. ARGV: now, until (seconds).

local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for _, member in ipairs(found) do
  redis.call('ZADD', KEYS[1], ARGV[2], member)
end
return found
