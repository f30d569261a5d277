//! A proxy of a test's own in front of Redis, which answers scripts with an error of any text while
//! one is set.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::AbortHandle,
};

/// Answers `EVAL` and `EVALSHA` with an error, and passes on all other commands.
pub(crate) struct ErrorProxy {
    port: u16,
    rule: Arc<Rule>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Rule {
    refusal: Mutex<Option<Refusal>>,
    /// Number of commands that were refused.
    refused: AtomicUsize,
}

#[derive(Clone)]
struct Refusal {
    error: String,
    /// Only commands with this text in them are refused.
    text: String,
}

impl ErrorProxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    pub(crate) async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rule = Arc::<Rule>::default();
        let accepting = tokio::spawn({
            let rule = Arc::clone(&rule);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(Arc::clone(&rule), client, server_port));
                }
            }
        });
        Self { port, rule, accepting: accepting.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Answers every script with `error`.
    pub(crate) fn refuse_all(&self, error: &str) {
        self.refuse(error, "");
    }

    /// Answers scripts that have `text` among their arguments with `error`.
    pub(crate) fn refuse(&self, error: &str, text: &str) {
        let refusal = Refusal { error: error.to_owned(), text: text.to_owned() };
        *self.rule.refusal.lock().unwrap() = Some(refusal);
    }

    /// Returns the number of scripts that were refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.rule.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse_nothing(&self) {
        *self.rule.refusal.lock().unwrap() = None;
    }
}

impl Drop for ErrorProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(rule: Arc<Rule>, client: TcpStream, server_port: u16) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let _ = exchange(
        &rule,
        (BufReader::new(from_client), to_client),
        (BufReader::new(from_server), to_server),
    )
    .await;
}

type Side = (BufReader<OwnedReadHalf>, OwnedWriteHalf);

/// Passes on one command after the other, each with its reply.
async fn exchange(
    rule: &Rule,
    (mut from_client, mut to_client): Side,
    (mut from_server, mut to_server): Side,
) -> std::io::Result<()> {
    loop {
        let command = read_value(&mut from_client).await?;
        let text = String::from_utf8_lossy(&command);
        let is_script = text.contains("\r\nEVALSHA\r\n") || text.contains("\r\nEVAL\r\n");
        let refusal = rule.refusal.lock().unwrap().clone();
        match refusal.filter(|refusal| is_script && text.contains(&refusal.text)) {
            Some(Refusal { error, .. }) => {
                rule.refused.fetch_add(1, Ordering::Relaxed);
                to_client.write_all(format!("-{error}\r\n").as_bytes()).await?;
            }
            None => {
                to_server.write_all(&command).await?;
                to_client.write_all(&read_value(&mut from_server).await?).await?;
            }
        }
    }
}

/// Reads one value of the Redis protocol.
async fn read_value(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let mut missing = 1_u64;
    while missing > 0 {
        missing -= 1;
        let begin = value.len();
        if from.read_until(b'\n', &mut value).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&value[begin..]).into_owned();
        let number = line[1..].trim_end().parse::<i64>().ok().and_then(|n| u64::try_from(n).ok());
        match (line.as_bytes()[0], number) {
            (b'$' | b'=', Some(length)) => {
                let begin = value.len();
                value.resize(begin + length as usize + 2, 0);
                from.read_exact(&mut value[begin..]).await?;
            }
            (b'*' | b'~' | b'>', Some(elements)) => missing += elements,
            (b'%', Some(pairs)) => missing += 2 * pairs,
            _ => {}
        }
    }
    Ok(value)
}
