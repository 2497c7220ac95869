#!lua flags=allow-oom
-- Makes sure that a shard knows which life its server is in. A new life begins at an offset above every one that was ever given, also
-- above those that this life no longer has; a shard that lost everything gets its sinks back, at the beginning.
--
-- KEYS  meta, log, low
-- ARGV  life, greatest offset that the caller ever saw, span between lives, shards, format, sinks...
-- gives {1 where a new life began, seq before, seq, last}
local meta, log, low = KEYS[1], KEYS[2], KEYS[3]
local known, span = tonumber(ARGV[2]), tonumber(ARGV[3])
local was = redis.call('HMGET', meta, 'life', 'seq', 'last', 'lives')
local top, last = tonumber(was[2] or '0'), tonumber(was[3] or '0')
if redis.call('EXISTS', log) == 1 then
  local info = redis.call('XINFO', 'STREAM', log)
  for n = 1, #info, 2 do
    if info[n] == 'last-generated-id' then last = tonumber(string.match(info[n + 1], '^%d+')) end
  end
end
local highest = math.max(top, last)
if was[1] == ARGV[1] and highest == top and known <= top then return {0, top, top, last} end
local start = 0
if math.max(highest, known) > 0 or was[1] then start = (math.floor(math.max(highest, known) / span) + 1) * span end
-- Offsets up to `start` that are no entries: with them, how many entries lie behind an offset is a subtraction.
local lives, skipped = {}, 0
for life in string.gmatch(was[4] or '', '[^;]+') do lives[#lives + 1] = life end
if #lives > 0 then skipped = tonumber(string.match(lives[#lives], '%d+$')) end
skipped = skipped + start - highest
lives[#lives + 1] = string.format('%.0f,%.0f', start, skipped)
while #lives > 64 do table.remove(lives, 1) end
redis.call('HSET', meta, 'life', ARGV[1], 'seq', string.format('%.0f', start), 'last', string.format('%.0f', last),
  'lives', table.concat(lives, ';'))
for _, field in ipairs({'bytes', 'base', 'letters'}) do redis.call('HSETNX', meta, field, '0') end
redis.call('HSETNX', meta, 'shards', ARGV[4])
redis.call('HSETNX', meta, 'format', ARGV[5])
if not was[1] then
  for n = 6, #ARGV do redis.call('HSETNX', low, ARGV[n], '0') end
end
return {1, highest, start, last}
