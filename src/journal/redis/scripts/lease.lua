#!lua flags=allow-oom
-- KEYS  low, state, lease    ARGV  sink, owner, ms
-- gives {0, fence, low, checkpoint} | {1, who holds it} | {2} for an unknown sink
--
-- A fence is the time, or one more than the last: it never comes again, even where the last one was lost with the data.
local low = redis.call('HGET', KEYS[1], ARGV[1])
if not low then return {2} end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[2] then return {1, holder} end
local now = redis.call('TIME')
local field = 'f:' .. ARGV[1]
local before = tonumber(redis.call('HGET', KEYS[2], field) or '0')
local fence = string.format('%.0f', math.max(before + 1, tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)))
redis.call('HSET', KEYS[2], field, fence)
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return {0, fence, low, redis.call('HGET', KEYS[2], 'c:' .. ARGV[1]) or ''}
