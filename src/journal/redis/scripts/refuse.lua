#!lua
-- Keeps a refused push once; past the limit the oldest makes room.
--
-- KEYS  meta, letters, letter index, known    ARGV  key of push and body, head, body, limit
-- gives how many are kept
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then
  local number = redis.call('HINCRBY', KEYS[1], 'refused', 1)
  local bytes = #ARGV[2] + #ARGV[3]
  redis.call('HSET', KEYS[2], 'h' .. number, ARGV[2], 'b' .. number, ARGV[3], 'k' .. number, ARGV[1])
  redis.call('ZADD', KEYS[3], number, number)
  redis.call('HSET', KEYS[4], ARGV[1], number)
  while redis.call('ZCARD', KEYS[3]) > tonumber(ARGV[4]) do
    local old = redis.call('ZPOPMIN', KEYS[3])[1]
    bytes = bytes - redis.call('HSTRLEN', KEYS[2], 'h' .. old) - redis.call('HSTRLEN', KEYS[2], 'b' .. old)
    redis.call('HDEL', KEYS[4], redis.call('HGET', KEYS[2], 'k' .. old))
    redis.call('HDEL', KEYS[2], 'h' .. old, 'b' .. old, 'k' .. old)
  end
  redis.call('HINCRBY', KEYS[1], 'letters', bytes)
end
return redis.call('ZCARD', KEYS[3])
