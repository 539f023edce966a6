//! `switchyard health`.

use anyhow::{bail, ensure};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::reach::Reach;

/// Check whether a hub serves; exit code 0 if it does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard health
  switchyard health --timeout 1s
  switchyard health readiness --server http://127.0.0.1:8080 --json
  switchyard health --server https://hub.example:50051 --tls-ca ca.crt")]
pub struct Health {
    /// What to check: empty for the whole hub, liveness, readiness, or the full name of a service
    #[arg(default_value = "")]
    service: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Health {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut hub = self.reach.connect_as_nobody().await?;
        let request = HealthCheckRequest { service: self.service.clone() };
        let answer = hub.ask("Health.Check", hub.health().check(request)).await?;
        let Ok(status) = ServingStatus::try_from(answer.status) else {
            bail!("the hub answered with a status this program does not know");
        };
        if self.json {
            println!("{}", serde_json::json!({ "service": self.service, "status": status.as_str_name() }));
        } else {
            println!("{}", status.as_str_name());
        }
        ensure!(status == ServingStatus::Serving, "the hub does not serve");
        Ok(())
    }
}
