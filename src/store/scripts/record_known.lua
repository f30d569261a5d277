-- Records occurrences of anomalies whose oldest event the caller knows, and returns the stats of
-- each one's anomaly after it. It does the same as record.lua in the cases that need nothing more.
--
-- KEYS     for each occurrence: timeline, repair_count, permanent_fix, metadata, folded; no
--          timeline may come twice
-- ARGV     1    the number of newest events that tell whether a step to a level is new
--          2    the counts that may be steps, each between blanks, and 3 the largest of them
--          4-6  the starts of the windows of 7 days, 24 hours, 1 hour (Unix seconds)
--          7    those of the further windows of the anomalies' rules, which have the same, a blank
--               after each
--          8    seconds to keep an anomaly
--          then for each occurrence: event id, its time (Unix seconds), the id of the oldest event
--          of the timeline, all of which are inside 30 days; for each window "1" if its events
--          are to be counted, "0" if it has all of them, '' if all windows have; and "1" if the
--          lives of its anomaly's keys are renewed with it, else ''
-- Returns  for each occurrence the number of events of 30 days, if all windows have all of them,
--          the event is the newest, and there is nothing else; else a text as record.lua does, with
--          `-` for the oldest event, and for the newest if that is this event. If that may be a
--          step, the number or text is followed by the times of the newest events. "more", without
--          an effect, if record.lua has to do it.
--
-- A script and not MULTI: whether an event is added depends on the content of the timeline.
--
-- If the oldest event is still the one that the caller knows, the length of the timeline is the
-- number of its events of 30 days, whoever else has written to it. This is a script of its own
-- rather than a branch of record.lua, because creating the functions of record.lua for each call
-- takes longer than this whole script.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 5, 8, 5

-- Maximum number of keys that one command reads: Lua's stack holds some thousands.
local KEYS_AT_ONCE = 2000

local newest_wanted, steps, largest_step = ARGV[1], ARGV[2], tonumber(ARGV[3])
local kept_seconds = ARGV[8]
local starts

-- Reads all keys that hold texts. The other keys are returned as missing, which is faster than
-- creating a list without them.
local function read_texts()
  if #KEYS <= KEYS_AT_ONCE then
    return call('MGET', unpack(KEYS))
  end
  local texts = {}
  for first = 1, #KEYS, KEYS_AT_ONCE do
    local some = call('MGET', unpack(KEYS, first, math.min(first + KEYS_AT_ONCE - 1, #KEYS)))
    for i = 1, #some do
      texts[first + i - 1] = some[i]
    end
  end
  return texts
end

-- Returns the mark in the form of record.lua if one holds, '' if none does, and nil if record.lua
-- must read it.
local function read_mark(k, texts)
  if texts[k + PERMANENT_FIX] ~= '1' then
    return ''
  end
  local marked_at = redis.pcall('HGET', KEYS[k + METADATA], 'permanent_fix_time')
  if type(marked_at) == 'table' then
    return nil
  end
  return ' marked ' .. call('PTTL', KEYS[k + PERMANENT_FIX]) .. ' '
    .. call('ZRANGE', KEYS[k], '-1', '-1', 'WITHSCORES')[2] .. ' ' .. (marked_at or '-')
end

-- Returns true if a number of events may be a step.
local function may_be_step(count)
  return count <= largest_step and string.find(steps, ' ' .. count .. ' ', 1, true)
end

-- Returns the starts of the windows, except that of 30 days.
local function window_starts()
  if not starts then
    starts = { ARGV[4], ARGV[5], ARGV[6] }
    for start in string.gmatch(ARGV[7], '%S+') do
      starts[#starts + 1] = start
    end
  end
  return starts
end

-- Returns the numbers of events in 30 days and in the other windows, and whether one of them may be
-- a step.
local function count_windows(timeline, length, windows)
  local text, is_step = length, may_be_step(length)
  for window = 1, #windows do
    local count = length
    if string.sub(windows, window, window) == '1' then
      count = call('ZCOUNT', timeline, window_starts()[window], '+inf')
      is_step = is_step or may_be_step(count)
    end
    text = text .. ',' .. count
  end
  return text, is_step
end

-- Returns true if the signature is there, so that it need not come with what renews lives.
local function has_signature(k)
  return redis.pcall('HEXISTS', KEYS[k + METADATA], 'signature') == 1
end

-- Renews the lives of an anomaly's keys. Metadata live for as long as a mark, which may be longer.
local function renew(k, texts)
  local metadata = KEYS[k + METADATA]
  call('EXPIRE', KEYS[k], kept_seconds)
  if not texts[k + PERMANENT_FIX] or call('TTL', metadata) < tonumber(kept_seconds) then
    call('EXPIRE', metadata, kept_seconds)
  end
end

-- Returns the result for an event that was added to a timeline.
local function answer(timeline, id, at, repairs, mark, windows)
  local length = call('ZCARD', timeline)
  unpack_timeline(timeline, length, at)
  local is_newest = call('ZREVRANK', timeline, id) == 0
  local result, is_step
  if is_newest and windows == '' and not repairs and mark == '' then
    result, is_step = length, may_be_step(length)
  else
    result, is_step = count_windows(timeline, length, windows)
    result = 'counted ' .. result .. ' - '
      .. (is_newest and '-' or call('ZRANGE', timeline, '-1', '-1', 'WITHSCORES')[2])
    if repairs or mark ~= '' then
      result = result .. ' exact ' .. (repairs and string.match(repairs, '^%d+$') or '-') .. mark
    end
  end
  if is_step and newest_wanted ~= '0' then
    return { result, newest_times(timeline, newest_wanted) }
  end
  return result
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  local texts, results = read_texts(), {}
  for i = 1, count do
    local k, a = (i - 1) * KEYS_EACH + 1, FIXED_ARGUMENTS + (i - 1) * ARGUMENTS_EACH
    local timeline, id, at = KEYS[k], ARGV[a + 1], ARGV[a + 2]
    results[i] = 'more'
    -- An error reply has no first member.
    if not texts[k + FOLDED] and redis.pcall('ZRANGE', timeline, '0', '0')[1] == ARGV[a + 3] then
      local mark, is_due = read_mark(k, texts), ARGV[a + 5] == '1'
      local is_taken = mark and (not is_due or has_signature(k))
      if is_taken and call('ZADD', timeline, 'NX', at, id) == 1 then
        if is_due then
          renew(k, texts)
        end
        results[i] = answer(timeline, id, at, texts[k + REPAIR_COUNT], mark, ARGV[a + 4])
      end
    end
  end
  return results
end)
