//! Says in plain words why there is no connection to Redis, and what to do about it. fred and the
//! system say it in words of their own, which follow in parentheses.

use fred::error::{Error, ErrorKind};

/// Explains an error of connecting to a server; `is_tls` where the URL asks for TLS.
pub(super) fn explain(error: &Error, is_tls: bool) -> String {
    let details = error.details();
    let text = details.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    let (why, what_to_do) = if has("lookup address") || has("not known") || has("no address") {
        ("the name of the host can't be found", "Check the host in `redis.url`, and the DNS")
    } else if has("connection refused") {
        ("nothing listens there", "Start Redis, or correct the host and port in `redis.url`")
    } else if has("unreachable") || has("no route to host") {
        ("the host can't be reached", "Check the host in `redis.url`, and the network")
    } else if has("no such file") {
        ("there is no such socket", "Start Redis, or correct the path in `redis.url`")
    } else if has("permission denied") {
        ("this user may not open the socket", "Permit it, as by a group of the socket")
    } else if let Some(answer) = explain_answer(&text) {
        answer
    } else if error.kind() == &ErrorKind::Auth {
        ("it refuses the user or the password", "Correct them in `redis.url`")
    } else if is_tls {
        explain_tls(&text)
    } else if error.kind() == &ErrorKind::Timeout {
        (
            "it does not answer in time",
            "Check the host and port in `redis.url`, a firewall between, and whether it hangs",
        )
    } else if error.kind() == &ErrorKind::Sentinel {
        ("Sentinel names no master", "Check `sentinelServiceName` in `redis.url`")
    } else {
        (
            "what listens there does not speak Redis' protocol, or ends the connection",
            "If it speaks TLS, use rediss://; else correct the host and port in `redis.url`",
        )
    };
    format!("{why} ({details}). {what_to_do}")
}

/// Explains what a server has answered.
fn explain_answer(text: &str) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| text.contains(part);
    Some(if has("wrongpass") {
        ("it refuses the user or the password", "Correct them in `redis.url`")
    } else if has("noauth") || has("authentication required") {
        (
            "it asks for a password",
            "Put it into `redis.url`, as redis://user:password@host:6379 or redis://:password@host",
        )
    } else if has("without any password configured") || has("no password is set") {
        ("it has no password, and `redis.url` has one", "Remove the password from `redis.url`")
    } else if has("cluster support disabled") || has("cluster mode is not enabled") {
        ("it is not a cluster", "Use redis:// (or rediss://) in `redis.url`")
    } else if has("moved ") || has("crossslot") {
        ("it is part of a cluster", "Use redis-cluster:// (or rediss-cluster://) in `redis.url`")
    } else if has("unknown command") && has("sentinel") {
        ("it is not a Sentinel", "Use redis:// (or rediss://) in `redis.url`")
    } else if has("db index") {
        ("it has no database of this number", "Correct the number at the end of `redis.url`")
    } else if has("noperm") || has("no permissions") || has("can't run this command") {
        (
            "the user lacks a permission",
            "Give it those that the README lists under \"On Redis\" (ACL SETUSER)",
        )
    } else if has("max number of clients") {
        ("it has as many clients as it takes", "Raise its `maxclients`, or end other clients")
    } else if has("loading") {
        ("it is loading its data", "Wait: the service goes on by itself once that is done")
    } else if has("invalid role") || has("readonly") {
        ("it is a replica", "Name the master in `redis.url`, or use redis-sentinel://")
    } else if has("masterdown") {
        ("it is a replica without its master", "Name the master in `redis.url`")
    } else if has("no such master") {
        ("Sentinel does not know the master", "Correct `sentinelServiceName` in `redis.url`")
    } else if has("protected mode") {
        (
            "it takes connections from its own machine only",
            "Give it a password, or set its `bind` and `protected-mode`",
        )
    } else {
        return None;
    })
}

fn explain_tls(text: &str) -> (&'static str, &'static str) {
    let has = |part: &str| text.contains(part);
    if has("unknownissuer") || has("unknown issuer") {
        ("its certificate is signed by a CA that is not trusted", "Set `redis.tls.ca_file`")
    } else if has("notvalidforname") || has("not valid for name") {
        (
            "its certificate does not name the host of `redis.url`",
            "Use a name that the certificate has",
        )
    } else if has("expired") {
        ("its certificate has expired", "Renew it")
    } else if has("certificaterequired") || has("certificate required") {
        (
            "it asks for a certificate of this service",
            "Set `redis.tls.certificate_file` and `redis.tls.key_file`",
        )
    } else if has("unknownca") || has("badcertificate") || has("certificate") {
        (
            "TLS fails on a certificate",
            "Check `redis.tls.ca_file`, and this service's own certificate under [redis.tls]",
        )
    } else {
        (
            "TLS can't be set up there",
            "If it does not speak TLS, use redis://; else look at what it logs",
        )
    }
}
