//! The application: opens the store, starts the counter, listens, and stops in order.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, signal::unix::Signal, time};

use crate::{
    auth::{AuthConfigError, Authenticator},
    config::Config,
    counter::{Counter, CounterConfig, TrustedClock},
    http::{self, AppState, Exposure, HttpConfig, HttpService, Tls, TlsError},
    spool::SpoolOpenError,
    store::{EmbeddedOpenError, EmbeddedStore, RedisStore, RedisTlsError, Store},
    telemetry::{self, Recorder},
};

const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time for closing the store and the spool, where requests have taken all of
/// `http.shutdown_timeout_seconds`.
const MIN_CLOSE_TIME: Duration = Duration::from_secs(1);

/// The service, ready to run.
#[derive(Debug)]
pub struct Application {
    listener: TcpListener,
    address: SocketAddr,
    service: HttpService,
    counter: Arc<Counter>,
    authenticator: Arc<Authenticator>,
    recorder: Arc<Recorder>,
    tls: Option<Arc<Tls>>,
    limits: HttpConfig,
}

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Listening on the address has failed.
    #[error(
        "can't listen on {address}: {source}. Stop what listens there, or set another `listen` \
         (ANOMALY_COUNTER__LISTEN)"
    )]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The configuration would let in nobody, or everybody.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// The TLS configuration can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The embedded store can't be opened.
    #[error(transparent)]
    Store(#[from] EmbeddedOpenError),
    /// The TLS configuration of Redis can't be used.
    #[error(transparent)]
    RedisTls(#[from] RedisTlsError),
    /// The spool can't be opened.
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    /// The process has a metrics recorder already.
    #[error("metrics can't be recorded: {0}")]
    Telemetry(#[from] metrics_exporter_prometheus::BuildError),
    /// Opening the store was aborted.
    #[error("opening the store was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

impl Application {
    /// Listens, opens the store and starts the counter.
    ///
    /// # Errors
    /// When the address is in use, the configuration can't be applied, or a file can't be opened.
    /// An unreachable Redis is no error.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        let listening = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;

        let authenticator = Arc::new(Authenticator::open(config.auth.clone(), address)?);

        let tls = Tls::load(&config.tls)?.map(Arc::new);

        let store = open_store(config).await?;
        let recorder = Recorder::install(store.name())?;
        let counting = CounterConfig {
            thresholds: config.thresholds,
            batch: config.batch,
            degraded: config.degraded,
            spool: config.spool,
            write_timeout: config.store.write_timeout(),
        };
        // A spool would be on the same disk as the embedded store, and fail with it.
        let spool_dir = config.redis.url.as_ref().map(|_| config.data_dir.as_path());
        let counter = Counter::start(store, Arc::new(TrustedClock::start()), counting, spool_dir)?;
        let counter = Arc::new(counter);
        let recorder = Arc::new(recorder);
        let state = AppState {
            counter: Arc::clone(&counter),
            authenticator: Arc::clone(&authenticator),
            recorder: Arc::clone(&recorder),
            anomaly: config.anomaly,
            http: config.http,
            alertmanager: config.alertmanager,
        };
        let exposure = Exposure {
            browser: config.browser.clone(),
            proxy: config.proxy.clone(),
            is_local: address.ip().is_loopback(),
        };
        let service = http::service(state, exposure);
        Ok(Self {
            listener,
            address,
            service,
            counter,
            authenticator,
            recorder,
            tls,
            limits: config.http,
        })
    }

    /// Returns the address that it listens on; port 0 is replaced by the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes, then answers the accepted requests and closes the store.
    /// Reloads the files of secrets at each of `hangups`.
    pub async fn run(self, stop: impl Future<Output = ()> + Send, hangups: Signal) {
        let Self { listener, address, service, counter, authenticator, recorder, tls, limits } =
            self;
        let reloading = tokio::spawn(reload(authenticator, tls.clone(), hangups));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let maintenance = tokio::spawn(maintain(Arc::clone(&counter), recorder));
        tracing::info!(%address, "listening on {scheme}://{address}");

        let deadline = http::serve(listener, tls, service, limits, stop).await;
        maintenance.abort();
        reloading.abort();
        let deadline = deadline.max(time::Instant::now() + MIN_CLOSE_TIME);
        if time::timeout_at(deadline, counter.close()).await.is_err() {
            tracing::warn!("the store could not be closed in time");
        }
        telemetry::summarise_log_at_end();
        tracing::info!("stopped");
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    if let Some(url) = &config.redis.url {
        tracing::info!(%url, "using Redis at {url}");
        return Ok(Arc::new(RedisStore::connect(&config.redis, config.timeline, url).await?));
    }
    let (data_dir, timeline, limits) = (config.data_dir.clone(), config.timeline, config.store);
    let shown = data_dir.display().to_string();
    tracing::info!(data_dir = shown, "using the embedded store in {shown}");
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedStore::open(&data_dir, timeline, limits))
            .await?;
    Ok(Arc::new(opened?))
}

async fn reload(authenticator: Arc<Authenticator>, tls: Option<Arc<Tls>>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match tls.as_ref().map(|tls| tls.reload()) {
            Some(Err(error)) => {
                tracing::error!(%error, "the certificate in force stays so: {error}");
            }
            Some(Ok(())) => tracing::info!("the certificate is reloaded"),
            None => {}
        }
        match authenticator.reload() {
            Ok(tokens) => tracing::info!(tokens, "reloaded: {tokens} tokens are in force"),
            Err(error) => {
                tracing::error!(%error, "what was in force stays so: {error}");
            }
        }
    }
}

async fn maintain(counter: Arc<Counter>, recorder: Arc<Recorder>) {
    let mut ticks = time::interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder.keep_up();
        telemetry::summarise_log(Instant::now());
        counter.maintain().await;
    }
}
