//! A small registry for tests: the real one's paths over HTTP, on a port of loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// What it holds and how it behaves.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Each schema's answer; an id is its place and one.
    pub schemas: Vec<Value>,
    /// Subject and the ids of its versions.
    pub subjects: Vec<(String, Vec<usize>)>,
    /// Every request, as method and path.
    pub asked: Vec<String>,
    /// What every request is answered with, where it is ill.
    pub ill: Option<(u16, String)>,
}

/// A registry that answers until it is dropped.
pub struct RegistryDouble {
    /// What it holds.
    pub shelf: Arc<Mutex<Shelf>>,
    /// Its address.
    pub url: String,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl RegistryDouble {
    /// Listens, and answers in a thread of its own.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (shelf, stop) = (Arc::new(Mutex::new(Shelf::default())), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let (theirs, ended) = (Arc::clone(&shelf), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                // A client that has gone is none of its business.
                let _ = stream.map(|stream| serve(&theirs, stream));
            }
        });
        Self { shelf, url, stop }
    }

    /// Adds a schema as an answer of `/schemas/ids`, under a subject; gives its id.
    pub fn add(&self, subject: &str, answer: &Value) -> u32 {
        let mut shelf = self.shelf.lock();
        shelf.add(subject, answer) as u32
    }
}

impl Drop for RegistryDouble {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // The listener looks up once more, and sees it.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shelf {
    fn add(&mut self, subject: &str, answer: &Value) -> usize {
        let same = |known: &Value| known["schema"] == answer["schema"] && known.get("schemaType") == answer.get("schemaType");
        let id = self.schemas.iter().position(same).map_or_else(
            || {
                self.schemas.push(answer.clone());
                self.schemas.len()
            },
            |at| at + 1,
        );
        match self.subjects.iter_mut().find(|(name, _)| name == subject) {
            Some((_, versions)) if versions.contains(&id) => {}
            Some((_, versions)) => versions.push(id),
            None => self.subjects.push((subject.to_owned(), vec![id])),
        }
        id
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.asked.push(format!("{method} {path}"));
        if let Some(ill) = &self.ill {
            return ill.clone();
        }
        let missing = |code: u32, message: &str| (404, json!({ "error_code": code, "message": message }).to_string());
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method, parts.as_slice()) {
            ("GET", ["schemas", "ids", id]) => match id.parse::<usize>().ok().and_then(|id| self.schemas.get(id.wrapping_sub(1))) {
                Some(schema) => (200, schema.to_string()),
                None => missing(40403, "Schema not found"),
            },
            ("GET", ["subjects", subject, "versions", version]) => {
                let Some((_, versions)) = self.subjects.iter().find(|(name, _)| name == subject) else {
                    return missing(40401, "Subject not found");
                };
                let id = match *version {
                    "latest" => versions.last(),
                    number => number.parse::<usize>().ok().and_then(|n| versions.get(n.wrapping_sub(1))),
                };
                id.map_or_else(|| missing(40402, "Version not found"), |id| (200, self.schemas[*id - 1].to_string()))
            }
            ("POST", ["subjects", subject, "versions"]) => match serde_json::from_slice::<Value>(body) {
                Ok(schema) if subject.starts_with("closed") => {
                    let of = schema["schemaType"].as_str().unwrap_or("AVRO").to_owned();
                    (409, json!({ "error_code": 409, "message": format!("{of} schema is incompatible\nwith an earlier one") }).to_string())
                }
                Ok(schema) => (200, json!({ "id": self.add(subject, &schema) }).to_string()),
                Err(_) => (422, json!({ "error_code": 42201, "message": "Invalid schema" }).to_string()),
            },
            _ => (404, "<html>not here</html>".to_owned()),
        }
    }
}

fn serve(shelf: &Mutex<Shelf>, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, answer) = shelf.lock().answer(method, path, &body);
    let mut stream = reader.into_inner();
    write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())
}
