//! A GET, and the status that it is answered with.

use std::{path::Path, path::PathBuf, pin::pin, sync::Arc};

use http_body_util::Empty;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{dial::Dial, tls};

/// More than any head of an answer needs; what does not fit is an error.
const LONGEST_HEAD: usize = 16 * 1024;

/// Asks a server, by a connection of its own each time.
pub(super) struct Http {
    uri: Uri,
    host: String,
    ca: Option<PathBuf>,
    status: Option<u16>,
    dial: Dial,
    /// Of `ca` as it was read last.
    tls: Option<Arc<ClientConfig>>,
    awaits: Awaits,
}

/// How far a run has come.
#[derive(Clone, Copy)]
enum Awaits {
    Connection,
    Tls,
    Answer,
}

impl Http {
    pub fn new(url: &str, ca: Option<&Path>, status: Option<u16>) -> Self {
        // The configuration was refused if it cannot be parsed.
        let uri: Uri = url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri
            .port_u16()
            .unwrap_or(if ca.is_some() { 443 } else { 80 });
        Self {
            dial: Dial::new(&host, port),
            uri,
            host,
            ca: ca.map(Path::to_owned),
            status,
            tls: None,
            awaits: Awaits::Connection,
        }
    }

    pub async fn get(&mut self) -> Result<(), String> {
        self.awaits = Awaits::Connection;
        let config = self.tls_config()?;
        let stream = self.dial.connect().await?;
        let status = match config {
            Some(config) => {
                self.awaits = Awaits::Tls;
                let stream = tls::connect(stream, &self.host, config).await?;
                self.awaits = Awaits::Answer;
                ask(stream, &self.uri).await
            }
            None => {
                self.awaits = Awaits::Answer;
                ask(stream, &self.uri).await
            }
        };
        self.judge(status.map_err(|error| self.plain(&error))?)
    }

    /// What a run that took too long lacked.
    pub fn awaited(&self) -> String {
        match self.awaits {
            Awaits::Connection => self.dial.awaited(),
            Awaits::Tls => "no end of the TLS handshake".to_owned(),
            Awaits::Answer => "no answer".to_owned(),
        }
    }

    /// The next run reads the file anew: it may have been replaced.
    pub fn forget_ca(&mut self) {
        self.tls = None;
    }

    fn tls_config(&mut self) -> Result<Option<Arc<ClientConfig>>, String> {
        let Some(ca) = &self.ca else {
            return Ok(None);
        };
        let config = match &self.tls {
            Some(config) => config.clone(),
            None => self.tls.insert(tls::config(ca)?).clone(),
        };
        Ok(Some(config))
    }

    fn judge(&self, status: StatusCode) -> Result<(), String> {
        let is_good = match self.status {
            Some(wanted) => status.as_u16() == wanted,
            None => status.is_success(),
        };
        let aside = match self.status {
            _ if is_good => return Ok(()),
            Some(wanted) => format!(", not {wanted}"),
            None if status.is_redirection() => " (a redirection, which is not followed)".to_owned(),
            None => String::new(),
        };
        Err(format!("it answers {status}{aside}"))
    }

    fn plain(&self, error: &hyper::Error) -> String {
        if error.is_parse() || error.is_parse_too_large() {
            let hint = if self.ca.is_some() {
                ""
            } else {
                "; if it speaks TLS, write https"
            };
            return format!("what it answers is no HTTP ({error}{hint})");
        }
        if error.is_incomplete_message() {
            return "it hangs up instead of an answer".to_owned();
        }
        let cause = std::error::Error::source(error);
        cause.map_or_else(|| error.to_string(), ToString::to_string)
    }
}

/// The body is left unread: a status says all.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    uri: &Uri,
) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("vip-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.unwrap_or_default();
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    Ok(answered?.status())
}
