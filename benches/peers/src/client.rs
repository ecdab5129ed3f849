//! A minimal HTTP/1.1 client, cheap enough not to distort the measurements.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{COOKIE, Failure};

pub struct Client(BufReader<TcpStream>);

pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// `name=value` of the session cookie that the response sets.
    pub fn cookie(&self) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next())
            .find(|pair| pair.starts_with(COOKIE))
    }
}

impl Client {
    pub async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// `cookie` is `name=value`, or empty to send none.
    pub async fn get(&mut self, path: &str, cookie: &str) -> Result<Response, Failure> {
        let cookie = match cookie {
            "" => String::new(),
            cookie => format!("Cookie: {cookie}\r\n"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).await? == 0 {
                return Err("the app closed the connection".into());
            }
        }
        let status = head
            .split(' ')
            .nth(1)
            .ok_or("a response without a status")?
            .parse()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(Response {
            status,
            head,
            body: String::from_utf8(body)?,
        })
    }
}
