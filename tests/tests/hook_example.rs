//! The example of a hook, run as it stands against a server that answers as the cloud's API does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vip_tests::command;

/// A shared IP that this node owns.
const HERE: &str = "127.0.0.1";
/// One that another node owns (RFC 5737).
const AWAY: &str = "192.0.2.1";
/// One that this node owns when it first looks, and not when it looks again.
const LEAVING: &str = "192.0.2.2";
const TOKEN: &str = "a-token-of-the-test";

/// What stands in for `vip-agent status --json`.
const STATUS: &str = r#"
role=follower
mkdir "$0.asked" 2>/dev/null && role=owner
cat <<END
{"vips":[{"ip":"127.0.0.1","role":"owner"},{"ip":"192.0.2.1","role":"follower"},{"ip":"192.0.2.2","role":"$role"}]}
END
"#;

#[test]
fn shellcheck_has_nothing_to_say_of_the_examples() -> Result<()> {
    command::succeed(Command::new("shellcheck").arg(example())).map(drop)
}

#[test]
fn a_floating_ip_is_asked_for_until_it_is_here() -> Result<()> {
    let mut holder = 41;
    let mut asked = 0;
    let cloud = Cloud::start(move |method, path, body| match (method, path) {
        ("GET", "/floating_ips/4711") => (200, json!({ "floating_ip": { "server": holder } })),
        ("POST", "/floating_ips/4711/actions/assign") => {
            asked += 1;
            if asked == 1 {
                return (423, json!({ "error": { "code": "locked" } }));
            }
            holder = body["server"].as_i64().unwrap_or_default();
            (201, json!({ "action": { "status": "running" } }))
        }
        _ => (404, json!({})),
    })?;
    let output = cloud.run_example("FLOATING_IP=4711\nSERVER=42", HERE)?;
    ensure!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("locked"), "{said}");
    let look = "GET /floating_ips/4711 null";
    let assign = "POST /floating_ips/4711/actions/assign {\"server\":42}";
    let expected = [look, assign, look, assign, look];
    ensure!(cloud.asked() == expected, "{:#?}", cloud.asked());

    // Run again it changes nothing.
    let output = cloud.run_example("FLOATING_IP=4711\nSERVER=42", HERE)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(cloud.asked() == [look], "{:#?}", cloud.asked());
    Ok(())
}

#[test]
fn an_alias_ip_is_taken_off_the_other_server_and_put_onto_this_one() -> Result<()> {
    let net = |network: i64, ips: &[&str]| json!({ "network": network, "alias_ips": ips });
    let mut servers = json!([
        { "id": 42, "private_net": [net(9, &[HERE]), net(7, &["10.0.0.42"])] },
        { "id": 41, "private_net": [net(7, &["10.0.0.41", HERE])] },
        { "id": 43, "private_net": [] },
    ]);
    let cloud = Cloud::start(move |method, path, body| match (method, path) {
        ("GET", "/metadata/instance-id") => (200, json!(42)),
        ("GET", "/servers?per_page=50") => (200, json!({ "servers": servers })),
        ("POST", path) => {
            let id = path.split('/').nth(2).and_then(|id| id.parse().ok());
            for server in servers.as_array_mut().into_iter().flatten() {
                if server["id"].as_i64() == id {
                    for net in server["private_net"].as_array_mut().into_iter().flatten() {
                        if net["network"] == body["network"] {
                            net["alias_ips"] = body["alias_ips"].clone();
                        }
                    }
                }
            }
            (201, json!({}))
        }
        _ => (404, json!({})),
    })?;
    let output = cloud.run_example("NETWORK=7", HERE)?;
    ensure!(output.status.success(), "{output:?}");
    let (look, change) = ("GET /servers?per_page=50 null", "/actions/change_alias_ips");
    let expected = [
        "GET /metadata/instance-id null".to_owned(),
        look.to_owned(),
        format!("POST /servers/41{change} {{\"alias_ips\":[\"10.0.0.41\"],\"network\":7}}"),
        format!(
            "POST /servers/42{change} {{\"alias_ips\":[\"10.0.0.42\",\"{HERE}\"],\"network\":7}}"
        ),
        look.to_owned(),
    ];
    ensure!(cloud.asked() == expected, "{:#?}", cloud.asked());
    Ok(())
}

#[test]
fn who_has_lost_the_shared_ip_meanwhile_does_not_take_it_back() -> Result<()> {
    let cloud = Cloud::start(|method, _, _| match method {
        "GET" => (200, json!({ "floating_ip": { "server": 41 } })),
        _ => (423, json!({ "error": { "code": "locked" } })),
    })?;
    for (vip, calls) in [(LEAVING, 2), (AWAY, 0)] {
        let output = cloud.run_example("FLOATING_IP=4711\nSERVER=42", vip)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(
            said.ends_with(&format!("{vip} is not served here any more (follower)\n")),
            "{said}"
        );
        let asked = cloud.asked();
        ensure!(asked.len() == calls, "{vip}: {asked:#?}");
    }
    // Where no agent runs, the next one that starts tells of what it has.
    let no_agent = r#"STATUS='echo {"error":{"kind":"no-agent"}}'"#;
    let settings = format!("FLOATING_IP=4711\nSERVER=42\n{no_agent}");
    let output = cloud.run_example(&settings, HERE)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(cloud.asked().is_empty(), "it asked without an agent");
    Ok(())
}

/// A server that stands in for the cloud's API, and for its metadata service.
struct Cloud {
    url: String,
    directory: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cloud {
    /// `answer` gets method, path and body, and says status and body.
    fn start(
        mut answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static,
    ) -> Result<Cloud> {
        let listener = TcpListener::bind((HERE, 0))?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(line) = serve(stream, &mut answer) {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
            }
        });
        Ok(Cloud {
            url: format!("http://{address}"),
            directory: std::env::temp_dir().join(format!(
                "vip-agent-example-{}-{}",
                std::process::id(),
                address.port()
            )),
            asked,
        })
    }

    /// Runs the example with these settings, for this shared IP.
    fn run_example(&self, settings: &str, vip: &str) -> Result<Output> {
        fs::create_dir_all(&self.directory)?;
        let [file, token, status] =
            ["settings", "token", "status"].map(|name| self.directory.join(name));
        fs::write(&status, STATUS)?;
        fs::write(&token, format!("{TOKEN}\n"))?;
        let url = &self.url;
        fs::write(
            &file,
            format!(
                "TOKEN_FILE={}\nSTATUS='sh {}'\nAPI={url}\nMETADATA={url}/metadata\n{settings}\n",
                token.display(),
                status.display()
            ),
        )?;
        // One that goes on and on must fail its test, not hang it.
        let mut command = Command::new("timeout");
        command.arg("30").arg(example()).arg(file);
        command::output(command.env("VIP_AGENT_VIP", vip))
    }

    /// What was asked since this was last called.
    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut asked)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Answers one request. Returns its method, path and body as one line.
fn serve(
    mut stream: TcpStream,
    answer: &mut impl FnMut(&str, &str, &Value) -> (u16, Value),
) -> Result<String> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let is_it = |(key, _): &(&str, &str)| key.eq_ignore_ascii_case(name);
        let mut headers = head.iter().filter_map(|line| line.split_once(": "));
        headers.find(is_it).map(|(_, value)| value)
    };
    let length = header("content-length").map_or(Ok(0), str::parse)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut words = head.first().context("a request")?.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let is_allowed = path.starts_with("/metadata/")
        || header("authorization") == Some(&format!("Bearer {TOKEN}"));
    let (status, text) = if is_allowed {
        answer(method, path, &body)
    } else {
        (401, json!({ "error": { "code": "unauthorized" } }))
    };
    let text = text.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(format!("{method} {path} {body}"))
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/hetzner-cloud.sh")
}
