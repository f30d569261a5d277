//! The connections to one server, or to the master that a Sentinel names. It keeps trying to
//! connect, replaces a connection that does not answer, and loads a script that the server has
//! forgotten.

use std::{future::Future, mem, sync::Arc};

use fred::{
    clients::Client as Connection, error::Error, interfaces::ClientLike as _, types::Value,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use super::{
    command::{self, command, send},
    explanation::explain,
    fault::{Declined, cause_of_connecting},
    identity,
    link::{ClientConfig, LastError, Link},
    script::{Call, SeenScripts},
};
use crate::store::{Cause, FaultClass, Resets, StoreError};

/// Minimum time between two reconnections because a connection does not answer or leads to the
/// wrong server.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which all connections are replaced, if reconnecting does not help.
const REPLACE_AFTER: Duration = Duration::from_secs(3);

pub(super) struct Client {
    config: ClientConfig,
    link: Mutex<Arc<Link>>,
    /// Grows with each reconnection, when the server has forgotten a script, and when the server
    /// turns out to be the wrong one.
    resets: Arc<watch::Sender<Resets>>,
    /// The error of the last connection that failed.
    last_error: LastError,
    silence: Mutex<Option<Silence>>,
    detour: Mutex<Detour>,
    /// The ids of the server, with the number of resets at which they were read.
    identity: Mutex<Option<(Resets, Option<String>)>>,
    seen: SeenScripts,
}

/// The state of connections that are up but do not answer.
struct Silence {
    since: Instant,
    reconnected_at: Option<Instant>,
}

/// The state of connections that lead to a server that takes no writes, because another server is
/// the master.
#[derive(Default)]
struct Detour {
    /// True if the last write reached such a server.
    lasts: bool,
    reconnected_at: Option<Instant>,
}

impl Client {
    /// Starts to connect. `resets` grows when the server may have forgotten data.
    pub(super) fn start(config: ClientConfig, resets: Arc<watch::Sender<Resets>>) -> Self {
        let last_error = LastError::default();
        let link = Mutex::new(Arc::new(Link::open(&config, &resets, &last_error)));
        Self {
            config,
            link,
            resets,
            last_error,
            silence: Mutex::default(),
            detour: Mutex::default(),
            identity: Mutex::default(),
            seen: SeenScripts::default(),
        }
    }

    /// Waits until it is connected, but no longer than the timeout of a command.
    pub(super) async fn connected(&self) {
        let link = self.link();
        let _ =
            tokio::time::timeout(self.config.command_timeout, link.pool.wait_for_connect()).await;
    }

    /// Runs a script within the timeout of a command.
    pub(super) async fn run(&self, call: Call) -> Result<Value, Declined> {
        let connection = self.connection().map_err(Declined::Fault)?;
        self.run_on(&connection, call).await
    }

    async fn run_on(&self, connection: &Connection, call: Call) -> Result<Value, Declined> {
        let script = call.script;
        let answer = self.in_time(async {
            match command::run(connection, "EVALSHA", call.command_line(script.sha())).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    if self.seen.forget(script) {
                        // The server was restarted, or a replica was promoted.
                        self.suspect_reset();
                    }
                    command::run(connection, "EVAL", call.command_line(script.source())).await
                }
                answer => {
                    if answer.is_ok() {
                        self.seen.add(script);
                    }
                    answer
                }
            }
        });
        let answer = answer.await;
        match &answer {
            Err(Declined::Fault(fault))
                if matches!(fault.cause(), Cause::Readonly | Cause::Loading) =>
            {
                self.begin_detour();
            }
            Ok(_) if script.is_write() => self.end_detour(),
            _ => {}
        }
        answer
    }

    /// Runs a script on the server that a slot is moving to, which takes calls for it only after
    /// ASKING.
    pub(super) async fn run_asking(&self, call: Call) -> Result<Value, Declined> {
        let connection = self.connection().map_err(Declined::Fault)?;
        self.in_time(async move {
            let pipeline = connection.pipeline();
            pipeline.custom::<(), _>(command("ASKING"), Vec::<Value>::new()).await?;
            let line = call.command_line(call.script.source());
            pipeline.custom::<(), _>(command("EVAL"), line).await?;
            pipeline.last().await
        })
        .await
    }

    /// Runs a command on one connection.
    pub(super) async fn ask(&self, words: &'static [&'static str]) -> Result<Value, StoreError> {
        let connection = self.connection()?;
        Ok(self.in_time(send(&connection, words)).await?)
    }

    /// Runs a command with arguments on one connection.
    pub(super) async fn send(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, Declined> {
        let connection = self.connection().map_err(Declined::Fault)?;
        self.in_time(command::run(&connection, name, arguments)).await
    }

    /// Runs a script on every connection that is up, and returns the first fault, if any. A
    /// connection that does not answer is reconnected: the other end may have dropped it silently,
    /// which fred does not notice.
    pub(super) async fn probe(&self, call: &Call) -> Result<(), Declined> {
        let link = self.link();
        let probes = link.connected().map(|connection| async move {
            (connection, self.run_on(connection, call.clone()).await)
        });
        let answers = join_all(probes).await;
        if answers.is_empty() {
            return Err(Declined::Fault(self.not_connected()));
        }
        let mut silent = Vec::new();
        let mut first_fault = Ok(());
        for (connection, answer) in answers {
            let Err(declined) = answer else { continue };
            if is_silence(&declined) {
                silent.push(connection.clone());
            }
            first_fault = first_fault.and(Err(declined));
        }
        self.unstick(silent);
        first_fault
    }

    /// Returns the ids of the server; `None` if it does not report them, or if the connections lead
    /// to different servers. They are read again only after a reset.
    pub(super) async fn identity(&self) -> Option<String> {
        let resets = *self.resets.borrow();
        if let Some((as_of, identity)) = &*self.identity.lock()
            && *as_of == resets
        {
            return identity.clone();
        }
        let link = self.link();
        let asked = join_all(link.connected().map(identity::identity));
        let identities = tokio::time::timeout(self.config.command_timeout, asked).await.ok()?;
        let (first, others) = identities.split_first()?;
        let identity = first.clone().filter(|_| others.iter().all(|other| other == first));
        *self.identity.lock() = Some((resets, identity.clone()));
        identity
    }

    pub(super) async fn close(&self) {
        self.link().close().await;
    }

    /// Returns a connection that is up. Fails at once if there is none: fred would keep the
    /// command, and run it long after its caller received an error.
    fn connection(&self) -> Result<Connection, StoreError> {
        let link = self.link();
        let connection = link.pool.next_connected();
        if connection.is_connected() { Ok(connection.clone()) } else { Err(self.not_connected()) }
    }

    fn not_connected(&self) -> StoreError {
        let last_error = self.last_error.lock();
        let is_tls = self.config.is_tls();
        let why = last_error.as_ref().map(|error| format!(": {}", explain(error, is_tls)));
        let why = why.unwrap_or_default();
        let cause = last_error.as_ref().map_or(Cause::Unreachable, cause_of_connecting);
        let shown = &self.config.shown;
        StoreError::transient(cause, format!("there is no connection to Redis ({shown}){why}"))
    }

    /// Waits for a reply no longer than the timeout of a command. If the server has forgotten a
    /// script, two commands are sent, and no caller should wait for two timeouts.
    async fn in_time(
        &self,
        answer: impl Future<Output = Result<Value, Error>> + Send,
    ) -> Result<Value, Declined> {
        match tokio::time::timeout(self.config.command_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| Declined::from(&error)),
            Err(_) => {
                let shown = &self.config.shown;
                let late = format!("Redis did not answer within the command timeout ({shown})");
                Err(Declined::Fault(StoreError::indeterminate(Cause::Timeout, late)))
            }
        }
    }

    /// Reconnects the silent connections or, if that has not helped, replaces all connections.
    fn unstick(&self, silent: Vec<Connection>) {
        let mut silence = self.silence.lock();
        if silent.is_empty() {
            *silence = None;
            return;
        }
        let now = Instant::now();
        let begun = silence.get_or_insert(Silence { since: now, reconnected_at: None });
        if now - begun.since >= REPLACE_AFTER {
            *silence = None;
            self.replace_link();
        } else if begun.reconnected_at.is_none_or(|at| now - at >= RECONNECT_INTERVAL) {
            begun.reconnected_at = Some(now);
            let timeout = self.config.connect_timeout;
            silent.into_iter().for_each(|connection| reconnect(connection, timeout));
        }
    }

    /// Reconnects all connections, at most once a second: the server is a replica, and the name of
    /// the master now leads to another server, or Sentinel names another one.
    fn begin_detour(&self) {
        let mut detour = self.detour.lock();
        if !mem::replace(&mut detour.lasts, true) {
            self.suspect_reset();
        }
        let now = Instant::now();
        if detour.reconnected_at.is_none_or(|at| now - at >= RECONNECT_INTERVAL) {
            detour.reconnected_at = Some(now);
            let timeout = self.config.connect_timeout;
            let link = self.link();
            link.connected().cloned().for_each(|connection| reconnect(connection, timeout));
        }
    }

    /// Notes that a write has succeeded. The server may have been promoted, and may have taken over
    /// its master's data before that.
    fn end_detour(&self) {
        if mem::take(&mut self.detour.lock().lasts) {
            self.suspect_reset();
        }
    }

    fn suspect_reset(&self) {
        self.resets.send_modify(|resets| resets.suspected += 1);
    }

    fn replace_link(&self) {
        tracing::debug!("the connections to Redis do not respond: they are replaced");
        let fresh = Arc::new(Link::open(&self.config, &self.resets, &self.last_error));
        let stuck = mem::replace(&mut *self.link.lock(), fresh);
        self.suspect_reset();
        tokio::spawn(async move { stuck.close().await });
    }

    fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.lock())
    }
}

/// Returns true if a connection is up and has not answered in time, or was lost.
fn is_silence(declined: &Declined) -> bool {
    matches!(
        declined,
        Declined::Fault(fault)
            if fault.class() == FaultClass::Indeterminate
                && matches!(fault.cause(), Cause::Timeout | Cause::Unreachable)
    )
}

/// Connects again: the name is resolved again, and Sentinel is asked again. A connection that hangs
/// in this step is replaced later.
fn reconnect(connection: Connection, timeout: Duration) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(timeout, connection.force_reconnection()).await;
    });
}
