//! The question.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Nobody is kept waiting longer than this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is. → [`Status`](crate::status::Status)
    Status {},
    /// Who is in, and who has what. → [`Members`](super::Members)
    Members {},
    /// To have a shared IP, and what moves with it, handed to a node. → [`Transferred`](super::Transferred)
    Transfer {
        /// The shared IP.
        vip: IpAddr,
        /// The node.
        to: String,
        /// How long to wait until it is there.
        #[serde(default = "patience_ms")]
        timeout_ms: u64,
    },
    /// To have a node hold nothing from now on. → [`Drained`](super::Drained)
    Drain {
        /// The node; this one, if none is named.
        #[serde(default)]
        node: Option<String>,
        /// Whether it gives up also what nobody else can take.
        #[serde(default)]
        force: bool,
        /// How long to wait until it holds nothing; not at all, if this is left out.
        #[serde(default)]
        wait_ms: Option<u64>,
    },
    /// To have a drained node take part again. → [`Drained`](super::Drained)
    Undrain {
        /// The node; this one, if none is named.
        #[serde(default)]
        node: Option<String>,
    },
    /// To read the configuration again, and take it up. → [`Reloaded`](super::Reloaded)
    Reload {},
}

impl Request {
    /// From what a client sent: one line, its end may be missing.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
        serde_json::from_str(text.trim()).map_err(|error| error.to_string())
    }

    /// As it goes over the socket, with its end of line.
    pub fn to_line(&self) -> String {
        let text = serde_json::to_string(self).expect("words and numbers always serialise");
        text + "\n"
    }
}

fn patience_ms() -> u64 {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default() {
        let parsed = |line: &str| Request::parse(line.as_bytes());
        assert_eq!(parsed(r#"{"status":{}}"#), Ok(Request::Status {}));
        assert_eq!(
            parsed(r#"{"drain":{}}"#),
            Ok(Request::Drain {
                node: None,
                force: false,
                wait_ms: None
            })
        );
        assert_eq!(
            parsed(r#"{"drain":{"node":null,"force":true}}"#),
            Ok(Request::Drain {
                node: None,
                force: true,
                wait_ms: None
            })
        );
        let transfer = parsed(" {\"transfer\":{\"vip\":\"fd00::64\",\"to\":\"cp-2\"}}\r\n");
        assert_eq!(
            transfer,
            Ok(Request::Transfer {
                vip: "fd00::64".parse().expect("an address"),
                to: "cp-2".to_owned(),
                timeout_ms: 10_000
            })
        );
    }

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let (node, vip) = (Some("cp-1".to_owned()), [10, 0, 0, 100].into());
        for request in [
            Request::Status {},
            Request::Members {},
            Request::Transfer {
                vip,
                to: "cp-2".to_owned(),
                timeout_ms: 5,
            },
            Request::Drain {
                node: node.clone(),
                force: true,
                wait_ms: Some(7),
            },
            Request::Undrain { node },
            Request::Reload {},
        ] {
            let line = request.to_line();
            assert_eq!(Request::parse(line.as_bytes()), Ok(request), "{line}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_place() {
        for (line, says) in [
            (&b"garbage"[..], "line 1 column 1"),
            (b"", "EOF"),
            (b"{}", "expected value"),
            (b"[]", "column"),
            (b"\xff\xfe", "UTF-8"),
            (br#"{"stat":{}}"#, "expected one of `status`, `members`"),
            (br#"{"status":{}} {"status":{}}"#, "trailing"),
            (br#"{"status":{"x":1}}"#, "x"),
            (
                br#"{"transfer":{"vip":"10.0.0.300","to":"a"}}"#,
                "IP address",
            ),
            (br#"{"transfer":{"vip":"10.0.0.3"}}"#, "missing field `to`"),
            (
                br#"{"transfer":{"vip":"10.0.0.3","to":"a","timeout_ms":-1}}"#,
                "-1",
            ),
            (br#"{"drain":{"nod":"a"}}"#, "nod"),
        ] {
            let error = Request::parse(line).expect_err("it is none");
            assert!(error.contains(says), "{error}");
        }
        let deep = "[".repeat(10_000);
        Request::parse(deep.as_bytes()).expect_err("it is none");
    }
}
