//! A Redis of the tool's own, with a small client, and `redis-benchmark`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Outcome,
    process::{data_dir, output},
    servers::{
        process::{Process, on_free_port},
        redis::{redis_command, start_redis},
    },
    stats::median,
};

/// Enough commands and clients to keep Redis busy.
const PIPELINE: &str = "32";
const CLIENTS: &str = "16";
/// A ZADD of a score and a member that are nearly always new, on a thousand keys: each
/// `__rand_int__` stands for one of a thousand numbers. The scores are whole numbers, which Redis
/// reads faster than the service's.
const RANDOM_ZADD: [&str; 4] = [
    "ZADD",
    "anomaly:timeline:__rand_int__",
    "1774__rand_int__",
    "__rand_int____rand_int____rand_int__",
];
const RANDOM_RANGE: &str = "1000";

/// An empty server that keeps nothing on disk.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl RedisServer {
    pub(crate) fn start() -> Outcome<Self> {
        Self::with(&[])
    }

    /// Starts a server with options of `redis-server`.
    pub(crate) fn with(options: &[String]) -> Outcome<Self> {
        Ok(on_free_port(|port| {
            let dir = data_dir()?;
            let process = Process::spawn_with_parent(&redis_command(port, options), dir.path())?;
            Ok(Self { port, _process: start_redis(process)?, _dir: dir })
        })?)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Outcome<Client> {
        Client::open(self.port)
    }

    /// The number of pipelined ZADDs a second, measured over `count`.
    pub(crate) fn raw_zadd_per_second(&self, count: u64) -> Outcome<f64> {
        let (port, count) = (self.port.to_string(), count.to_string());
        let mut arguments = vec!["-p", &port, "-c", CLIENTS, "-P", PIPELINE, "-n", &count];
        arguments.extend(["-r", RANDOM_RANGE, "--csv"]);
        arguments.extend(RANDOM_ZADD);
        let text = output("redis-benchmark", &arguments)?;
        // A line of headings, then `"ZADD …","231000.00",…`.
        let figures = text.lines().last().unwrap_or_default();
        let per_second = figures.split("\",\"").nth(1).ok_or_else(|| format!("no rate: {text}"))?;
        Ok(per_second.parse()?)
    }
}

/// A connection that sends one command at a time.
#[derive(Debug)]
pub(crate) struct Client(BufReader<TcpStream>);

/// A reply to a command.
#[derive(Debug)]
pub(crate) enum Reply {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Client {
    fn open(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut client = Self(BufReader::new(stream));
        client.run(&["PING"])?;
        Ok(client)
    }

    pub(crate) fn run(&mut self, words: &[&str]) -> Outcome<Reply> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(command.as_bytes())?;
        self.reply()
    }

    /// The median round trip of a PING in microseconds, measured for a time. `redis-benchmark` is
    /// too coarse: its percentiles go in steps of 8 µs.
    pub(crate) fn ping_us(&mut self, length: Duration) -> Outcome<f64> {
        let begun = Instant::now();
        let mut took_us = Vec::new();
        while begun.elapsed() < length {
            let sent = Instant::now();
            self.run(&["PING"])?;
            took_us.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(&took_us))
    }

    /// The memory of all data in bytes.
    pub(crate) fn used_bytes(&mut self) -> Outcome<u64> {
        let Reply::Text(facts) = self.run(&["INFO", "memory"])? else {
            return Err("INFO gave no text".into());
        };
        let used = facts.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(used.ok_or("INFO says nothing of memory")?.trim().parse()?)
    }

    /// The memory of all keys that match `pattern`, in bytes, without estimates.
    pub(crate) fn memory_bytes(&mut self, pattern: &str) -> Outcome<u64> {
        let mut bytes = 0;
        for name in self.names(pattern)? {
            if let Reply::Number(of_key) = self.run(&["MEMORY", "USAGE", &name, "SAMPLES", "0"])? {
                bytes += u64::try_from(of_key)?;
            }
        }
        Ok(bytes)
    }

    fn names(&mut self, pattern: &str) -> Outcome<Vec<String>> {
        let mut cursor = "0".to_owned();
        let mut names = Vec::new();
        loop {
            let page = self.run(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "10000"])?;
            let Reply::List(page) = page else { return Err("SCAN gave no list".into()) };
            let mut parts = page.into_iter();
            let (Some(Reply::Text(next)), Some(Reply::List(found))) = (parts.next(), parts.next())
            else {
                return Err("SCAN gave no page".into());
            };
            names.extend(found.into_iter().filter_map(|name| match name {
                Reply::Text(name) => Some(name),
                Reply::Nothing | Reply::Number(_) | Reply::List(_) => None,
            }));
            if next == "0" {
                // SCAN may return a key twice.
                names.sort_unstable();
                names.dedup();
                return Ok(names);
            }
            cursor = next;
        }
    }

    fn reply(&mut self) -> Outcome<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or("Redis has hung up")?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            ":" => Reply::Number(rest.parse()?),
            "$" if rest == "-1" => Reply::Nothing,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8(text)?)
            }
            "*" => {
                let count: usize = rest.parse()?;
                Reply::List((0..count).map(|_| self.reply()).collect::<Outcome<_>>()?)
            }
            _ => return Err(format!("Redis says {line}").into()),
        })
    }
}
