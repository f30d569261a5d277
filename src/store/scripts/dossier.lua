-- Reads all that is kept about one anomaly.
--
-- KEYS  timeline, repair_count, permanent_fix, metadata, repair_history
-- ARGV  1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
-- Gives {'known', signature, first_seen, fix description, fixed by, {repair history}, tally...},
--       or {'unknown'} or {'error', message}; '' stands for what there is not
--
-- A script and not single commands: all figures of an answer are of the same moment.

local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }

local function read(names)
  if not is_known(names) then
    return { 'unknown' }
  end
  local texts = redis.call('HMGET', names.metadata, 'signature', 'first_seen',
    'permanent_fix_description', 'permanent_fix_by')
  local history = redis.call('LRANGE', names.repair_history, 0, 99)
  return { 'known', texts[1] or '', texts[2] or '', texts[3] or '', texts[4] or '', history,
    unpack(tally(names, starts)) }
end

elements(5, 4, 0)
return guarded(read, names_of(1, 5))
