-- Reads the object of an anomaly's first post.
--
-- KEYS     timeline, repair_count, permanent_fix, metadata
-- ARGV     none
-- Returns  {"signature", the object (JSON) or '' if there is none}; or {"error" and a message}
--
-- A script and not a single command: all calls take the same path.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 4, 0, 0

local function read()
  return { 'signature', read_if_readable('HGET', KEYS[1 + METADATA], 'signature') or '' }
end

return run(function()
  elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return protected_list(read)
end)
