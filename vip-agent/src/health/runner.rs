//! One check: from one start to the next.

use tokio::{
    sync::mpsc::UnboundedSender,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Verdict, dial::Dial, exec::Exec, http::Http, streak::Streak};
use crate::config::{CheckConfig, Target};

/// Runs a check for ever. Starts keep to the grid of the interval, however long a run takes.
pub(super) async fn run(check: CheckConfig, verdicts: UnboundedSender<Verdict>) {
    let mut probe = Probe::of(&check.target);
    let mut streak = Streak::new(check.rise, check.fall);
    let mut told = Ok(());
    let mut starts = interval(check.interval);
    starts.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        starts.tick().await;
        let result = match timeout(check.timeout, probe.run()).await {
            Ok(result) => result,
            Err(_) => Err(probe.overdue(&check)),
        };
        tracing::debug!(%check, ?result, "checked");
        probe.note(&result);
        let is_other = match streak.note(result.is_ok()) {
            Some(true) => {
                tracing::info!(%check, "health check passes");
                true
            }
            Some(false) => {
                let reason = result.as_ref().err().map_or("", String::as_str);
                tracing::warn!(%check, reason, "health check fails");
                true
            }
            // A failure may go on for another reason; while it passes there is none.
            None => told.is_err() && result.is_err() && told != result,
        };
        if is_other {
            told = result.clone();
            let check = check.clone();
            // At its end the agent no longer listens.
            let _ = verdicts.send(Verdict { check, result });
        }
    }
}

enum Probe {
    Tcp(Dial),
    Http(Http),
    Exec(Exec),
}

impl Probe {
    fn of(target: &Target) -> Self {
        match target {
            Target::Tcp { host, port } => Self::Tcp(Dial::new(host, *port)),
            Target::Http { url, ca, status } => Self::Http(Http::new(url, ca.as_deref(), *status)),
            Target::Exec(words) => Self::Exec(Exec::new(words)),
        }
    }

    async fn run(&mut self) -> Result<(), String> {
        match self {
            Self::Tcp(dial) => dial.connect().await.map(drop),
            Self::Http(http) => http.get().await,
            Self::Exec(exec) => exec.run().await,
        }
    }

    /// What a run came to that was dropped at its timeout.
    fn overdue(&self, check: &CheckConfig) -> String {
        let limit = humantime::format_duration(check.timeout);
        match self {
            Self::Tcp(dial) => format!("{} within {limit}", dial.awaited()),
            Self::Http(http) => format!("{} within {limit}", http.awaited()),
            Self::Exec(exec) => exec.overdue(&limit.to_string()),
        }
    }

    fn note(&mut self, result: &Result<(), String>) {
        if let (Self::Http(http), Err(_)) = (self, result) {
            http.forget_ca();
        }
    }
}
