//! The section `[daemon]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Fault, duration::period};

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DaemonSection {
    pub(crate) socket: Option<Spanned<PathBuf>>,
    pub(crate) sweep: Option<Spanned<String>>,
    pub(crate) metrics: Option<Spanned<String>>,
    pub(crate) metrics_public: Option<bool>,
    pub(crate) metrics_bindings: Option<bool>,
}

/// What the daemon does besides serving owners, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it listens for owners, if the file says so.
    pub socket: Option<PathBuf>,
    /// How often rows that have expired are swept out, if at all.
    pub sweep: Option<Duration>,
    /// Where it serves metrics, if it does.
    pub metrics: Option<SocketAddr>,
    /// Whether metrics have a series for each binding.
    pub metrics_bindings: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            socket: None,
            sweep: Some(Duration::from_secs(30)),
            metrics: None,
            metrics_bindings: true,
        }
    }
}

impl DaemonSection {
    /// What the section says.
    pub(crate) fn read(self) -> Result<Service, Fault> {
        let mut service = Service::default();
        if let Some(socket) = self.socket {
            if !socket.get_ref().is_absolute() {
                return Err(("the path must begin with /".into(), socket.span()));
            }
            service.socket = Some(socket.into_inner());
        }
        if let Some(sweep) = self.sweep {
            service.sweep = period(sweep.get_ref()).map_err(|reason| (reason, sweep.span()))?;
        }
        if let Some(metrics) = self.metrics {
            let address: SocketAddr = metrics.get_ref().parse().map_err(|_| {
                let reason = "metrics are served at an address and a port, such as 127.0.0.1:9478";
                (reason.into(), metrics.span())
            })?;
            if !address.ip().is_loopback() && self.metrics_public != Some(true) {
                let reason = "others could read it there, since nobody is asked who they are: \
                              a loopback address it is, or metrics_public = true";
                return Err((reason.into(), metrics.span()));
            }
            service.metrics = Some(address);
        }
        service.metrics_bindings = self.metrics_bindings.unwrap_or(true);
        Ok(service)
    }
}
