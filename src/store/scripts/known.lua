-- The shared part of the scripts that receive the oldest event of each timeline; prepended to them.
-- They are not branches of the scripts that read anomalies in full, because creating the functions
-- of those for each call takes longer than one of these scripts in total.
--
-- KEYS     for each anomaly: repair_count, permanent_fix, folded; and then for each one: timeline,
--          metadata
-- ARGV     1-3  the starts of the windows of 7 days, 24 hours, 1 hour (Unix seconds)
--          4    those of the further windows of the anomalies' rules, which have the same, a blank
--               after each
--          and for each anomaly first: the id of the oldest event of the timeline, all of which are
--          inside of 30 days; its time (Unix seconds), '' if no other event can have its id; and
--          for each window "1" if its events are to be counted, "0" if it has all of them, '' if
--          all windows have
--
-- Since the oldest event is still the one that the caller knows, the length of the timeline is the
-- number of its events of 30 days, whoever else has written to it.

local TEXTS_EACH, OTHERS_EACH = 3, 2

-- Maximum number of keys that one command reads: Lua's stack takes some thousands.
local KEYS_AT_ONCE = 2000

local starts

-- Reads the keys that hold texts, those of `count` anomalies.
local function read_texts(count)
  local length = count * TEXTS_EACH
  if length <= KEYS_AT_ONCE then
    return call('MGET', unpack(KEYS, 1, length))
  end
  local texts = {}
  for first = 1, length, KEYS_AT_ONCE do
    local some = call('MGET', unpack(KEYS, first, math.min(first + KEYS_AT_ONCE - 1, length)))
    for i = 1, #some do
      texts[first + i - 1] = some[i]
    end
  end
  return texts
end

-- Returns the length of an anomaly's timeline, and what follows its counts and times in the form of
-- `encode_stats` in library.lua, '' if nothing does; nil if it has to be read in full. `t` and `k`
-- are the indices of its first text and of its timeline. A mark comes with the newest event if one
-- is to be recorded, which `is_write` says.
local function read_known(t, k, texts, oldest, oldest_at, is_write)
  -- The number of events behind the oldest one; no number if it is missing, or of a foreign type.
  local behind = not texts[t + 2] and redis.pcall('ZREVRANK', KEYS[k], oldest)
  if type(behind) ~= 'number' then
    return nil
  end
  local length = call('ZCARD', KEYS[k])
  if length ~= behind + 1 then
    return nil
  end
  -- After a deletion, the same id may have come again with another time. Comparing texts of the
  -- time is slower, because a score must be printed for it.
  if oldest_at ~= '' and call('ZRANGEBYSCORE', KEYS[k], oldest_at, oldest_at, 'LIMIT', '0', '1')[1]
      ~= oldest then
    return nil
  end
  local repairs, mark = texts[t], texts[t + 1]
  if not repairs and mark ~= '1' then
    return length, ''
  end
  local rest = ' exact ' .. (repairs and string.match(repairs, '^%d+$') or '-')
  if mark ~= '1' then
    return length, rest
  end
  local marked_at = redis.pcall('HGET', KEYS[k + 1], 'permanent_fix_time')
  if type(marked_at) == 'table' then
    return nil
  end
  return length, rest .. ' marked ' .. call('PTTL', KEYS[t + 1]) .. ' '
    .. (is_write and newest_time(KEYS[k]) or '-') .. ' ' .. (marked_at or '-')
end

-- Returns the starts of the windows but that of 30 days.
local function window_starts()
  if not starts then
    starts = { ARGV[1], ARGV[2], ARGV[3] }
    for start in string.gmatch(ARGV[4], '%S+') do
      starts[#starts + 1] = start
    end
  end
  return starts
end

-- Returns the events of 30 days, and then those of the other windows, one number if all are equal;
-- and whether `is_wanted`, if there is such a function, says so of one of them.
local function count_windows(timeline, length, windows, is_wanted)
  local text, any = length, is_wanted and is_wanted(length)
  for window = 1, #windows do
    local count = length
    if string.sub(windows, window, window) == '1' then
      count = call('ZCOUNT', timeline, window_starts()[window], '+inf')
      any = any or is_wanted and is_wanted(count)
    end
    text = text .. ',' .. count
  end
  return text, any
end

