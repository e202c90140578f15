//! The API on the control socket: nginx asks here to wake sites, `paasctl` to refresh the table, operators what is going on.
//!
//! | request | answer |
//! |---|---|
//! | `GET /initialize?site=ID&sent=0\|1&idempotent=0\|1` | 204: send the request (again); 502: a real one; 503 with `Retry-After`, `X-Paas-Reason`, `X-Paas-Id`: an error page; 404: no such site |
//! | `POST /refresh` | 200 when the table holds what the registry holds, with the revision; 500 with the reason |
//! | `GET /status` | JSON |

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::follow::Follower;
use crate::initialize::driver::{Message, SiteNow};
use crate::initialize::machine::Shown;
use crate::initialize::words::{Answer, Generation, Visit};
use crate::model::SiteId;

/// What the API answers from.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The machine's name.
    pub name: String,
    /// The table's keeper.
    pub follower: Follower,
    /// The driver, on a machine that runs sites.
    pub driver: Option<mpsc::Sender<Message>>,
}

/// The API.
pub fn router(daemon: Daemon) -> Router {
    Router::new()
        .route("/initialize", get(initialize))
        .route("/refresh", post(refresh))
        .route("/status", get(status))
        .with_state(daemon)
}

#[derive(Debug, Deserialize)]
struct Initialize {
    site: u64,
    #[serde(default)]
    sent: u8,
    #[serde(default)]
    idempotent: u8,
}

async fn initialize(State(daemon): State<Daemon>, Query(query): Query<Initialize>) -> Response {
    let Some(site) = SiteId::new(query.site) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(driver) = daemon.driver else {
        return (
            StatusCode::NOT_FOUND,
            "this machine is no backend: it runs no sites\n",
        )
            .into_response();
    };
    // What is not plainly harmless counts as sent and as not to be repeated.
    let visit = Visit {
        sent: query.sent != 0,
        idempotent: query.idempotent == 1,
    };
    let (answer, told) = oneshot::channel();
    if driver
        .send(Message::Visited(site, visit, answer))
        .await
        .is_err()
    {
        return unavailable("restarting", 1, None);
    }
    match told.await {
        Ok(Answer::Ready) => StatusCode::NO_CONTENT.into_response(),
        Ok(Answer::Real) => StatusCode::BAD_GATEWAY.into_response(),
        // Only orders are answered so.
        Ok(Answer::Asleep) => unavailable("restarting", 1, None),
        Ok(Answer::NoSuchSite) => StatusCode::NOT_FOUND.into_response(),
        Ok(Answer::Unavailable(failure)) => {
            let reason = failure.reason;
            unavailable(reason.word(), reason.retry_after(), Some(failure.id(site)))
        }
        Err(_) => unavailable("restarting", 1, None),
    }
}

fn unavailable(reason: &'static str, retry_after: u32, id: Option<String>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    headers.insert(
        HeaderName::from_static("x-paas-reason"),
        HeaderValue::from_static(reason),
    );
    if let Some(id) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(HeaderName::from_static("x-paas-id"), id);
    }
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}

async fn refresh(State(daemon): State<Daemon>) -> Response {
    match daemon.follower.refresh().await {
        Ok(revision) => Json(serde_json::json!({ "revision": revision })).into_response(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
    }
}

#[derive(Debug, Serialize)]
struct Status {
    name: String,
    version: &'static str,
    revision: u64,
    backend: bool,
    sites: Vec<SiteStatus>,
}

#[derive(Debug, Serialize)]
struct SiteStatus {
    id: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    waiting: usize,
}

async fn status(State(daemon): State<Daemon>) -> Response {
    let mut sites = Vec::new();
    if let Some(driver) = &daemon.driver {
        let (answer, asked) = oneshot::channel();
        if driver.send(Message::Asked(answer)).await.is_ok() {
            sites = asked.await.unwrap_or_default();
        }
    }
    sites.sort_by_key(|now| now.site);
    Json(Status {
        name: daemon.name,
        version: env!("CARGO_PKG_VERSION"),
        revision: *daemon.follower.revision().borrow(),
        backend: daemon.driver.is_some(),
        sites: sites.into_iter().map(SiteStatus::from).collect(),
    })
    .into_response()
}

impl From<SiteNow> for SiteStatus {
    fn from(now: SiteNow) -> Self {
        let (state, generation, reason) = words(now.shown);
        SiteStatus {
            id: now.site.get(),
            state,
            generation: generation.map(|generation| generation.to_string()),
            reason,
            waiting: now.waiting,
        }
    }
}

fn words(shown: Shown) -> (&'static str, Option<Generation>, Option<&'static str>) {
    match shown {
        Shown::Asleep => ("asleep", None, None),
        Shown::Failing(failure) => (
            "failing",
            Some(failure.generation),
            Some(failure.reason.word()),
        ),
        Shown::Starting(generation) => ("starting", Some(generation), None),
        Shown::Running(generation) => ("running", Some(generation), None),
        Shown::Reloading(generation) => ("reloading", Some(generation), None),
        Shown::Stopping(generation) => ("stopping", Some(generation), None),
    }
}
