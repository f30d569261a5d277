-- The beginning of every script: this file is inserted before each of them, because a script can't
-- load another one. `run` runs the body of a script, and `protected` runs each element.
--
-- `k` is the index of an anomaly's first key in KEYS. Its keys follow in the order below, and a
-- script takes the first few of them. (Indices are used because creating a table of names for each
-- anomaly takes longer than many commands.) Numbers are passed to Redis as texts if possible,
-- because Lua would format a number again for each command.

local TIMELINE, REPAIR_COUNT, PERMANENT_FIX, METADATA = 0, 1, 2, 3
local FOLDED, FOLDED_COUNTS, FOLDED_IDS = 4, 5, 6
local REPAIR_HISTORY, OPERATION_IDS, AUDIT = 7, 8, 9

-- The arguments come as one: a MessagePack array of texts. Redis makes a value and then a text of
-- Lua of each argument, and of an element only the latter.
local KEYS, ARGV = KEYS, cmsgpack.unpack(ARGV[1])
local call, tonumber = redis.call, tonumber

-- Returns the number of elements of a call. Fails unless the call has `keys_each` keys for each of
-- them, and `fixed_arguments` arguments followed by `arguments_each` for each of them.
local function elements(keys_each, fixed_arguments, arguments_each)
  local count = #KEYS / keys_each
  if count ~= math.floor(count) or #ARGV ~= fixed_arguments + count * arguments_each then
    error('wrong number of KEYS or ARGV')
  end
  return count
end

-- Returns the time of the newest event, nil if there is none. REV takes it from the end of the
-- timeline, where Redis would look for the rank -1 from its beginning.
local function newest_time(timeline)
  return call('ZRANGE', timeline, '0', '0', 'REV', 'WITHSCORES')[2]
end

-- Returns the text of an error about the data of one anomaly: a key of a foreign type, a text that
-- is not a number, or an error of Lua itself. Returns nil if the error is about the server: no
-- anomaly is at fault then, and the next one would fail too.
local function data_error(text)
  if string.find(text, '^user_script:%d+: ') then
    return not string.find(text, 'Script killed', 1, true) and text or nil
  end
  for _, pattern in ipairs({ '^WRONGTYPE ', '^ERR value is ', '^ERR hash value is ',
    '^ERR min or max is ', '^ERR increment or decrement ', '^ERR Lua redis lib command arg' }) do
    if string.find(text, pattern) then
      return text
    end
  end
  return nil
end

-- Returns the text of a raised error with its code first. Redis 6.2 puts the position before it, as
-- in "@user_script: 113: -OOM command not allowed".
local function code_first(raised)
  local text, places = tostring(type(raised) == 'table' and raised.err or raised), 1
  while places > 0 do
    text, places = string.gsub(text, '^@user_script: ?%d+: ?%-?', '')
  end
  return text
end

-- Returns the result of `work`. If it fails because of its anomaly's data, returns "error" and the
-- message, so that the anomaly fails alone. Any other error is raised again.
local function protected(work, ...)
  local ok, result = pcall(work, ...)
  if ok then
    return result
  end
  local text = code_first(result)
  if data_error(text) then
    return 'error ' .. text
  end
  error(text, 0)
end

-- Returns the result of `main`, or the error that it raises as the error of the script, with its
-- code first: READONLY, OOM, and so on. (If it were raised to the server, it would begin with ERR.)
local function run(main)
  local ok, result = pcall(main)
  if ok then
    return result
  end
  return redis.error_reply(code_first(result))
end

