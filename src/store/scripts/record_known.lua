-- Records occurrences of anomalies whose oldest event the caller knows, and returns the stats of
-- each one's anomaly after it. It does the same as record.lua in the cases that need nothing more.
--
-- KEYS     as in known.lua
-- ARGV     1-4  as in known.lua
--          5    the number of newest events that tell whether a step to a level is new
--          6    the counts that may be steps, each between blanks, and 7 the largest of them
--          8    seconds to keep an anomaly
--          then for each occurrence those of known.lua, event id, its time (Unix seconds), and "1"
--          if it renews the TTLs of its anomaly's keys, else ''
-- Returns  for each occurrence the number of events of 30 days, if all windows have all of them,
--          the event is the newest, and there is nothing else; else a text as record.lua does, with
--          `-` for the oldest event, and for the newest if that is this event. If that may be a
--          step, the number or text is followed by the times of the newest events. "more", without
--          an effect, if record.lua has to do it: so for all that follow of its anomaly too, so
--          that they stay in order.
--
-- A script and not MULTI: whether an event is added depends on what is there.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 5, 8, 6

local newest_wanted, steps, largest_step = ARGV[5], ARGV[6], tonumber(ARGV[7])
local kept_seconds = ARGV[8]

-- Returns true if a number of events may be a step.
local function may_be_step(count)
  return count <= largest_step and string.find(steps, ' ' .. count .. ' ', 1, true)
end

-- Returns the result for an event that has been added to a timeline, which has `length` events now.
-- `rest` follows the stats.
local function answer(timeline, length, id, at, windows, rest)
  unpack_timeline(timeline, length, at)
  local is_newest = call('ZREVRANK', timeline, id) == 0
  local result, is_step
  if is_newest and windows == '' and rest == '' then
    result, is_step = length, may_be_step(length)
  else
    result, is_step = count_windows(timeline, length, windows, may_be_step)
    result = 'counted ' .. result .. ' - ' .. (is_newest and '-' or newest_time(timeline)) .. rest
  end
  if is_step and newest_wanted ~= '0' then
    return { result, newest_times(timeline, newest_wanted) }
  end
  return result
end

-- Returns true if the signature is stored, so that it need not come with what renews TTLs.
local function has_signature(metadata)
  return redis.pcall('HEXISTS', metadata, 'signature') == 1
end

-- Renews the TTLs of an anomaly's keys. After a mark, be it removed since, its metadata are kept
-- for longer.
local function renew(timeline, metadata)
  call('EXPIRE', timeline, kept_seconds)
  if call('TTL', metadata) < tonumber(kept_seconds) then
    call('EXPIRE', metadata, kept_seconds)
  end
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  local texts, results = read_texts(count), {}
  local t, k, a = 1, count * TEXTS_EACH + 1, FIXED_ARGUMENTS + 1
  local left
  for i = 1, count do
    local timeline, id, at = KEYS[k], ARGV[a + 3], ARGV[a + 4]
    local length, rest
    if not (left and left[timeline]) then
      length, rest = read_known(t, k, texts, ARGV[a], ARGV[a + 1], true)
    end
    local is_due = ARGV[a + 5] == '1'
    local is_known = length and (not is_due or has_signature(KEYS[k + 1]))
    if is_known and call('ZADD', timeline, 'NX', at, id) == 1 then
      if is_due then
        renew(timeline, KEYS[k + 1])
      end
      results[i] = answer(timeline, length + 1, id, at, ARGV[a + 2], rest)
    else
      left = left or {}
      left[timeline], results[i] = true, 'more'
    end
    t, k, a = t + TEXTS_EACH, k + OTHERS_EACH, a + ARGUMENTS_EACH
  end
  return results
end)
