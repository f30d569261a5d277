//! A client that sends one request at a time, for loading and for timing single calls: a full HTTP
//! client would take as much time as the call that it measures.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use crate::Outcome;

const HEAD_END: &[u8] = b"\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// A persistent connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// The received part of the answer.
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Sends a request made by [`get`] or [`send`], and returns the body of a 200.
    pub(crate) fn call(&mut self, request: &[u8]) -> Outcome<&[u8]> {
        match self.exchange(request)? {
            (200, body) => Ok(body),
            (status, body) => {
                Err(format!("not a 200: {status} {}", String::from_utf8_lossy(body)).into())
            }
        }
    }

    /// Sends a request, and returns the status and the body of any answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Outcome<(u16, &[u8])> {
        self.stream.write_all(request)?;
        self.answer.clear();
        let mut piece = [0; 64 << 10];
        let (status, head_length, body_length) = loop {
            if let Some(at) = find(&self.answer, HEAD_END) {
                let head = str::from_utf8(&self.answer[..at])?;
                let status = head.split(' ').nth(1).ok_or("an answer without a status")?;
                break (status.parse()?, at + HEAD_END.len(), content_length(head)?);
            }
            self.read_on(&mut piece)?;
        };
        while self.answer.len() < head_length + body_length {
            self.read_on(&mut piece)?;
        }
        Ok((status, &self.answer[head_length..]))
    }

    /// Sends a request, and parses the body of a 200 as JSON.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Outcome<Value> {
        Ok(serde_json::from_slice(self.call(request)?)?)
    }

    fn read_on(&mut self, piece: &mut [u8]) -> io::Result<()> {
        match self.stream.read(piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.answer.extend_from_slice(&piece[..length]);
                Ok(())
            }
        }
    }
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    send("POST", path, body)
}

/// A request with a body, which may be empty.
pub(crate) fn send(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn content_length(head: &str) -> Outcome<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.ok_or("an answer without a length")?;
    Ok(length.trim().parse()?)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
