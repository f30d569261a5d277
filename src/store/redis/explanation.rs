//! Explains in plain words why there is no connection to Redis, and what to do about it. The
//! original texts of fred and the system follow in parentheses.

use fred::error::{Error, ErrorKind};

/// Explains an error of connecting to a server. `is_tls` says that the URL requires TLS.
pub(super) fn explain(error: &Error, is_tls: bool) -> String {
    let details = error.details();
    let text = details.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    let (why, what_to_do) = if has("lookup address") || has("not known") || has("no address") {
        ("the host name can't be resolved", "Check the host in `redis.url` and the DNS")
    } else if has("connection refused") {
        ("no process listens there", "Start Redis, or correct the host and port in `redis.url`")
    } else if has("unreachable") || has("no route to host") {
        ("the host is unreachable", "Check the host in `redis.url` and the network")
    } else if has("no such file") {
        ("the socket does not exist", "Start Redis, or correct the path in `redis.url`")
    } else if has("permission denied") {
        ("this user may not open the socket", "Grant access, for example by the socket's group")
    } else if let Some(answer) = explain_answer(&text) {
        answer
    } else if error.kind() == &ErrorKind::Auth {
        ("it refuses the user or the password", "Correct them in `redis.url`")
    } else if is_tls && error.kind() == &ErrorKind::Timeout {
        (
            "it does not answer in time",
            "If it does not use TLS, use redis://; otherwise check the host and port in \
             `redis.url`, and firewalls",
        )
    } else if is_tls {
        explain_tls(&text)
    } else if error.kind() == &ErrorKind::Timeout {
        (
            "it does not answer in time",
            "Check the host and port in `redis.url`, firewalls, and whether Redis hangs",
        )
    } else if error.kind() == &ErrorKind::Sentinel {
        ("Sentinel names no master", "Check `sentinelServiceName` in `redis.url`")
    } else {
        (
            "the server does not speak the Redis protocol, or closes the connection",
            "If it uses TLS, use rediss://; otherwise correct the host and port in `redis.url`",
        )
    };
    format!("{why} ({}). {what_to_do}", system_words(details))
}

/// Returns the system's text for an error that fred formats in Rust's debug form.
fn system_words(details: &str) -> &str {
    let after = |mark: &str| details.split_once(mark).map(|(_, rest)| rest);
    let words = match details.split_once(' ') {
        Some(("Os", _)) => after("message: "),
        Some(("Custom", _)) => after("error: "),
        _ => None,
    };
    words.unwrap_or(details).trim_end_matches([' ', '}']).trim_matches('"')
}

/// Explains a server's reply.
fn explain_answer(text: &str) -> Option<(&'static str, &'static str)> {
    let has = |part: &str| text.contains(part);
    Some(if has("wrongpass") {
        ("it refuses the user or the password", "Correct them in `redis.url`")
    } else if has("noauth") || has("authentication required") {
        (
            "it requires a password",
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
            "the user lacks permissions",
            "Grant those that docs/security.md lists under \"Redis with users\" (ACL SETUSER)",
        )
    } else if has("max number of clients") {
        ("its limit of clients is reached", "Raise its `maxclients`, or stop other clients")
    } else if has("loading") {
        ("it is loading its data", "Wait: the service continues by itself when Redis is ready")
    } else if has("invalid role") || has("readonly") {
        ("it is a replica", "Use the master's address in `redis.url`, or use redis-sentinel://")
    } else if has("masterdown") {
        ("it is a replica that has lost its master", "Use the master's address in `redis.url`")
    } else if has("no such master") {
        ("Sentinel does not know the master", "Correct `sentinelServiceName` in `redis.url`")
    } else if has("clusterdown") {
        ("the cluster is down, or has no server for some slots", "Check CLUSTER INFO")
    } else if has("oom ") || has("'maxmemory'") {
        ("its memory is full", "Raise its `maxmemory`, or free memory")
    } else if has("misconf") {
        ("it can't save its data to disk", "Check its log, and free disk space")
    } else if has("noreplicas") {
        ("it has too few replicas to accept writes", "Start them, or lower `min-replicas-to-write`")
    } else if has("protected mode") {
        (
            "it accepts connections from its own machine only",
            "Give it a password, or set its `bind` and `protected-mode`",
        )
    } else if text.starts_with("err ") {
        ("it returns an error", "Check the error and its log")
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
    } else if has("causedasendentity") {
        (
            "its certificate is a CA certificate, which a server must not use",
            "Give it a certificate that is signed by the CA",
        )
    } else if has("expired") {
        ("its certificate has expired", "Renew it")
    } else if has("certificaterequired") || has("certificate required") {
        (
            "it requires a client certificate",
            "Set `redis.tls.certificate_file` and `redis.tls.key_file`",
        )
    } else if has("unknownca") || has("badcertificate") || has("certificate") {
        (
            "TLS fails because of a certificate",
            "Check `redis.tls.ca_file`, and this service's own certificate under [redis.tls]",
        )
    } else {
        ("the TLS handshake fails", "If it does not use TLS, use redis://; otherwise check its log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_own_explanation() {
        let os =
            |kind: &str, text: &str| format!("Os {{ code: 1, kind: {kind}, message: {text:?} }}");
        let custom = |error: &str| format!("Custom {{ kind: InvalidData, error: {error} }}");
        let lookup = "\"failed to lookup address information: Name or service not known\"";
        for (kind, details, is_tls, says) in [
            (
                ErrorKind::IO,
                os("ConnectionRefused", "Connection refused"),
                false,
                "no process listens",
            ),
            (ErrorKind::IO, custom(lookup), true, "host name can't be resolved"),
            (ErrorKind::IO, os("ConnectionReset", "Connection reset"), false, "use rediss://"),
            (
                ErrorKind::IO,
                os("NotFound", "No such file or directory"),
                false,
                "socket does not exist",
            ),
            (
                ErrorKind::Auth,
                "WRONGPASS invalid username".to_owned(),
                false,
                "user or the password",
            ),
            (
                ErrorKind::Auth,
                "NOAUTH Authentication required.".to_owned(),
                true,
                "requires a pass",
            ),
            (
                ErrorKind::Unknown,
                "ERR This instance has cluster support disabled".to_owned(),
                false,
                "not a cluster",
            ),
            (
                ErrorKind::Unknown,
                "NOPERM this user has no permissions".to_owned(),
                true,
                "ACL SETUSER",
            ),
            (ErrorKind::Unknown, "OOM command not allowed".to_owned(), false, "memory is full"),
            (ErrorKind::Timeout, "no answer within 1300 ms".to_owned(), false, "in time"),
            (ErrorKind::Timeout, "no answer within 1300 ms".to_owned(), true, "use redis://"),
            (
                ErrorKind::Tls,
                custom("InvalidCertificate(UnknownIssuer)"),
                true,
                "redis.tls.ca_file",
            ),
            (ErrorKind::Protocol, "Invalid frame type.".to_owned(), false, "Redis protocol"),
        ] {
            let explained = explain(&Error::new(kind, details.clone()), is_tls);
            assert!(explained.contains(says), "{details}: {explained}");
            assert!(!explained.contains("kind:"), "{explained}");
        }
    }
}
