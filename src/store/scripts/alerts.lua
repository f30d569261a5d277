-- Records alerts of deliveries, and occurrences between them, in order, and returns the stats of
-- each one's anomaly after it.
--
-- KEYS     for each element: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids, repair_history, operation_ids, audit, incidents
-- ARGV     1-11  as record.lua takes them
--          12   the unit that counts: "incident", "episode" or "delivery"
--          13   microseconds without a delivery after which an alert has ended
--          14   microseconds after an incident's last counted start from which an episode that
--               begins is a new incident
--          15   1 if an alert counts although only its end was delivered
--          16   now (Unix microseconds)
--          then for each element: the five arguments of record.lua, always with the object if it
--          is an alert; its fingerprint (8 bytes), or '' if it is no alert;
--          the times (Unix microseconds) at which its episode began, '' if unset, at which it was
--          delivered, and at which it ended, '' while it fires; 1 if its end says nothing of the
--          cause
-- Returns  for each element a text, as record.lua does. The outcome of an alert may also be
--          "ongoing", "same_incident", "resolved" or "stale"
--
-- A script and not MULTI: whether an alert counts depends on the deliveries of the others, which
-- another instance of the service may have received.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 11, 16, 10

policy.unit, policy.counts_missed = ARGV[12], ARGV[15] == '1'
policy.stale_after, policy.incident_max = tonumber(ARGV[13]), tonumber(ARGV[14])
policy.now = tonumber(ARGV[16])

local function alert_of(a)
  local alert = { fingerprint = ARGV[a + 6], starts_at = tonumber(ARGV[a + 7]),
    delivered_at = tonumber(ARGV[a + 8]), ends_at = tonumber(ARGV[a + 9]),
    is_interrupted = ARGV[a + 10] == '1' }
  -- An alert does not begin after its end or after its delivery.
  local latest = alert.ends_at or alert.delivered_at
  alert.start = math.min(alert.starts_at or latest, latest)
  return alert
end

function hear(k, a, stats, is_kept)
  local id, at, at_number = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 2])
  local alert = alert_of(a)
  local outcome, change = decide(k, stats, alert)
  local is_counted = false
  if outcome == 'count' then
    outcome = is_kept and add(k, stats, id, at, at_number) or make_known(k, stats)
    -- If the alert was not known but its id was, it was counted before alerts were tracked, or by a
    -- call that failed half-way.
    is_counted = outcome == 'counted' or outcome == 'too_old'
      or outcome == 'duplicate' and change.is_first
  elseif not (change.is_empty or stats.is_made_known) then
    make_known(k, stats)
    stats.is_made_known = true
  end
  -- An alert that can't be recognised changes nothing, so that it counts when it is delivered
  -- again.
  local is_change = is_counted or outcome == 'duplicate' or not change.is_empty
  if is_change and outcome ~= 'unrecognisable' then
    change_incidents(k, alert, change, is_counted, kept_seconds)
  end
  return outcome
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  return record_all(count, KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
end)
