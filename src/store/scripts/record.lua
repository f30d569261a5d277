-- Records occurrences in order, and returns the stats of each one's anomaly after it.
--
-- KEYS     for each occurrence: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          5    seconds to keep an anomaly
--          6    number of an anomaly's newest events that are kept exactly
--          7    number of events beyond those before they are rolled up
--          8    number of ids of rolled-up events to remember
--          9    1 if the occurrences may have been recorded before
--          10   the time from which events are kept (Unix seconds), unless the server's clock is
--               behind
--          11   what most of the anomalies' rules ask for: "newest;steps;windows", the number of
--               newest events that tell whether a step to a level is new, the counts that may be
--               steps ("window:count" each, the windows 1 to 4 as above and then those of the
--               rule), and its windows (`rule_windows` in library.lua)
--          then for each occurrence: event id, its time (Unix seconds); if the TTLs of its
--          anomaly's keys are renewed with it, its time (ISO 8601) and the posted object (JSON),
--          else '' and ''; and what its rule asks for, '' if that is the 11th
-- Returns  for each occurrence a text: "counted", "duplicate", "too_old" or "unrecognisable", and
--          the stats after it (`encode_stats` in library.lua), and, if it was counted and no
--          event is older than 30 days or rolled up, a line feed and the id of the oldest event;
--          if it may be a step, that text and the times of the newest events; "wanted", without an
--          effect, if no object came, and the anomaly has no timeline or, if the event is too old,
--          no signature; or "error" and a message
--
-- A script and not MULTI: the writes that follow depend on whether an id is new, and all figures of
-- an answer are from the same moment.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 7, 11, 5

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return record_all(count, KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
end)
