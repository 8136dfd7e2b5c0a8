//! A real etcd of one member, on the loopback, for one test.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcd_client::{Client, Permission};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::config::{EtcdConfig, User};

pub const PREFIX: &str = "/vip-agent";
const READY_WITHIN: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";

pub struct Etcd {
    process: Child,
    url: String,
    password: Option<PathBuf>,
    directory: TempDir,
}

impl Etcd {
    /// Started, and answering.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let (client, peer) = (free_url(), free_url());
        let log = std::fs::File::create(directory.path().join("log")).expect("there is room");
        let mut command = Command::new("etcd");
        command
            .args(["--name", "one", "--logger", "zap"])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // etcd 3.4 refuses to start on this architecture without being told that we know.
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let etcd = Self {
            process: command.spawn().expect("etcd is installed"),
            url: client,
            password: None,
            directory,
        };
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(error) = etcd.try_get().await {
            assert!(Instant::now() < deadline, "etcd does not answer: {error}");
            sleep(Duration::from_millis(50)).await;
        }
        etcd
    }

    /// The same, for a user who may use the keys under [`PREFIX`] and nothing else.
    pub async fn start_with_users() -> Self {
        let mut etcd = Self::start().await;
        let mut client = etcd.client().await;
        let under_prefix = Permission::read_write(PREFIX).with_prefix();
        let setting_up = async {
            client.user_add("root", PASSWORD, None).await?;
            client.user_grant_role("root", "root").await?;
            client.role_add("vip").await?;
            client.role_grant_permission("vip", under_prefix).await?;
            client.user_add("agent", PASSWORD, None).await?;
            client.user_grant_role("agent", "vip").await?;
            client.auth_enable().await
        };
        setting_up.await.expect("users can be set up");
        let file = etcd.directory.path().join("password");
        std::fs::write(&file, PASSWORD).expect("there is room");
        etcd.password = Some(file);
        etcd
    }

    /// How an agent is told to reach it.
    pub fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![self.url.clone()],
            prefix: PREFIX.to_owned(),
            tls: None,
            user: self.password.clone().map(|password_file| User {
                name: "agent".to_owned(),
                password_file,
            }),
        }
    }

    /// A connection of the test's own, as root where there are users.
    pub async fn client(&self) -> Client {
        let user = self.password.is_some().then_some(("root", PASSWORD));
        let options =
            user.map(|(name, word)| etcd_client::ConnectOptions::new().with_user(name, word));
        let connected = Client::connect([&self.url], options).await;
        connected.expect("etcd answers")
    }

    /// Bytes that it has sent to clients.
    pub fn sent_bytes(&self) -> u64 {
        self.metric("etcd_network_client_grpc_sent_bytes_total ")
    }

    /// Transactions that it was asked for.
    pub fn transactions(&self) -> u64 {
        self.metric(r#"grpc_server_msg_received_total{grpc_method="Txn","#)
    }

    /// The value of the one line that begins so.
    fn metric(&self, name: &str) -> u64 {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("etcd listens");
        let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
        asked.expect("etcd listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("etcd answers");
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit_once(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}")).1;
        let value: f64 = value.parse().expect("a number");
        // They are counts, though large ones are written as 1.2e+06.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let value = value as u64;
        value
    }

    async fn try_get(&self) -> Result<(), etcd_client::Error> {
        let mut client = Client::connect([&self.url], None).await?;
        client.get(PREFIX, None).await.map(drop)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    format!("http://{address}")
}
