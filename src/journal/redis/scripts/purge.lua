#!lua flags=allow-oom
-- Removes dead letters.
--
-- KEYS  meta, letters, letter index, known    ARGV  offsets
-- gives {how many there were, how many are left}
local removed, bytes = 0, 0
for _, offset in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[3], offset) == 1 then
    bytes = bytes + redis.call('HSTRLEN', KEYS[2], 'h' .. offset) + redis.call('HSTRLEN', KEYS[2], 'b' .. offset)
    local known = redis.call('HGET', KEYS[2], 'k' .. offset)
    if known then redis.call('HDEL', KEYS[4], known) end
    redis.call('HDEL', KEYS[2], 'h' .. offset, 'b' .. offset, 'k' .. offset)
    removed = removed + 1
  end
end
if removed > 0 then redis.call('HINCRBY', KEYS[1], 'letters', -bytes) end
return {removed, redis.call('ZCARD', KEYS[3])}
