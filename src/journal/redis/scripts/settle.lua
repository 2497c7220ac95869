#!lua flags=allow-oom
-- Replaces a checkpoint, and keeps dead letters in the same act.
--
-- KEYS  low, state, meta, letters, letter index
-- ARGV  sink, fence, low, checkpoint, letters in other shards, limit; per letter: offset, head, body
-- gives {0, letters in this shard} | {1} unknown sink | {2} old fence | {3, low} out of order | {4} too many letters
local sink = ARGV[1]
local low = redis.call('HGET', KEYS[1], sink)
if not low then return {1} end
if redis.call('HGET', KEYS[2], 'f:' .. sink) ~= ARGV[2] then return {2} end
local next = tonumber(ARGV[3])
local before = tonumber(low)
if next < before or next > math.max(before, tonumber(redis.call('HGET', KEYS[3], 'seq') or '0')) then return {3, low} end
if #ARGV > 6 then
  local new = 0
  for n = 7, #ARGV, 3 do
    if not redis.call('ZSCORE', KEYS[5], ARGV[n]) then new = new + 1 end
  end
  if new > 0 and redis.call('ZCARD', KEYS[5]) + new + tonumber(ARGV[5]) > tonumber(ARGV[6]) then return {4} end
  local bytes = 0
  for n = 7, #ARGV, 3 do
    local head, body = 'h' .. ARGV[n], 'b' .. ARGV[n]
    bytes = bytes + #ARGV[n + 1] + #ARGV[n + 2]
      - redis.call('HSTRLEN', KEYS[4], head) - redis.call('HSTRLEN', KEYS[4], body)
    redis.call('HSET', KEYS[4], head, ARGV[n + 1], body, ARGV[n + 2])
    redis.call('ZADD', KEYS[5], ARGV[n], ARGV[n])
  end
  redis.call('HINCRBY', KEYS[3], 'letters', bytes)
end
redis.call('HSET', KEYS[1], sink, ARGV[3])
redis.call('HSET', KEYS[2], 'c:' .. sink, ARGV[4])
return {0, redis.call('ZCARD', KEYS[5])}
