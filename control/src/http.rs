//! The API on the control socket: nginx asks here to wake sites, `paasctl` to refresh the table, operators what is going on.
//!
//! | request | answer |
//! |---|---|
//! | `GET /initialize?site=ID&sent=0\|1&idempotent=0\|1` | 204: send the request (again); 502: a real one; 503 with `Retry-After`, `X-Paas-Reason`, `X-Paas-Id`: an error page, or, with the reason `elsewhere`, a site that sleeps and is not woken here; 404: no such site |
//! | `POST /refresh` | 200 when the table holds what the registry holds, with the revision; 500 with the reason |
//! | `POST /order?site=ID&order=start\|stop\|reload&wait=0\|1` | JSON: what came of it; 404: no backend |
//! | `GET /history?site=ID` | JSON: the last starts and broken requests; 404: no backend |
//! | `GET /backends` | JSON: what probes say of each backend; 404: no balancer |
//! | `GET /status` | JSON: the table's revision; on a backend what waits and starts, and every site that does not simply sleep |

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::follow::Follower;
use crate::initialize::driver::{Load, Message, SiteNow, Told};
use crate::initialize::machine::Shown;
use crate::initialize::words::{Answer, Failure, Generation, Order, Visit};
use crate::model::SiteId;
use crate::probe::Opinions;

/// What the API answers from.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The machine's name.
    pub name: String,
    /// The table's keeper.
    pub follower: Follower,
    /// The driver, on a machine that runs sites.
    pub driver: Option<mpsc::Sender<Message>>,
    /// What probes say of backends, on a balancer.
    pub opinions: Option<Opinions>,
}

/// The API.
pub fn router(daemon: Daemon) -> Router {
    Router::new()
        .route("/initialize", get(initialize))
        .route("/refresh", post(refresh))
        .route("/order", post(order))
        .route("/history", get(history))
        .route("/status", get(status))
        .route("/backends", get(backends))
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
        // The driver knows better.
        may_wake: true,
    };
    let (answer, told) = oneshot::channel();
    if driver
        .send(Message::Visited(site, visit, answer))
        .await
        .is_err()
    {
        return unavailable("restarting", 1, None);
    }
    let Ok(Told { answer, id }) = told.await else {
        return unavailable("restarting", 1, None);
    };
    match answer {
        Answer::Ready => StatusCode::NO_CONTENT.into_response(),
        Answer::Real => refused(StatusCode::BAD_GATEWAY, HeaderMap::new(), id),
        // Only orders are answered so.
        Answer::Asleep => unavailable("restarting", 1, None),
        // The balancer knows this word and asks the next backend.
        Answer::Elsewhere => unavailable("elsewhere", 1, None),
        Answer::NoSuchSite => StatusCode::NOT_FOUND.into_response(),
        Answer::Unavailable(Failure { reason, .. }) => {
            unavailable(reason.word(), reason.retry_after(), id)
        }
    }
}

fn unavailable(reason: &'static str, retry_after: u32, id: Option<String>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    headers.insert(
        HeaderName::from_static("x-paas-reason"),
        HeaderValue::from_static(reason),
    );
    refused(StatusCode::SERVICE_UNAVAILABLE, headers, id)
}

fn refused(status: StatusCode, mut headers: HeaderMap, id: Option<String>) -> Response {
    if let Some(id) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(HeaderName::from_static("x-paas-id"), id);
    }
    (status, headers).into_response()
}

#[derive(Debug, Deserialize)]
struct OrderQuery {
    site: u64,
    order: OrderWord,
    #[serde(default)]
    wait: u8,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderWord {
    Start,
    Stop,
    Reload,
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The site serves, by the code it was ordered to.
    Running,
    /// It has no processes.
    Asleep,
    /// It could not be done.
    Failed {
        /// A word of [`crate::initialize::words::Reason`].
        reason: String,
        /// By which `paasctl why` finds it.
        id: String,
    },
    /// The registry has no such site.
    NoSuchSite,
    /// Nobody waits for the outcome.
    Ordered,
}

async fn order(State(daemon): State<Daemon>, Query(query): Query<OrderQuery>) -> Response {
    let (site, driver) = match (SiteId::new(query.site), daemon.driver) {
        (Some(site), Some(driver)) => (site, driver),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let order = match query.order {
        OrderWord::Start => Order::Start,
        OrderWord::Stop => Order::Stop,
        OrderWord::Reload => Order::Reload,
    };
    let (answer, told) = oneshot::channel();
    if driver
        .send(Message::Ordered(site, order, answer))
        .await
        .is_err()
    {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if query.wait == 0 {
        return Json(Outcome::Ordered).into_response();
    }
    let Ok(Told { answer, id }) = told.await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    Json(match answer {
        Answer::Ready | Answer::Real => Outcome::Running,
        // Orders are carried out here.
        Answer::Asleep | Answer::Elsewhere => Outcome::Asleep,
        Answer::NoSuchSite => Outcome::NoSuchSite,
        Answer::Unavailable(failure) => Outcome::Failed {
            reason: failure.reason.word().to_owned(),
            id: id.unwrap_or_default(),
        },
    })
    .into_response()
}

#[derive(Debug, Deserialize)]
struct HistoryQuery {
    site: u64,
}

async fn history(State(daemon): State<Daemon>, Query(query): Query<HistoryQuery>) -> Response {
    let (Some(site), Some(driver)) = (SiteId::new(query.site), daemon.driver) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (answer, told) = oneshot::channel();
    if driver
        .send(Message::Remembered(site, answer))
        .await
        .is_err()
    {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match told.await {
        Ok(history) => Json(history).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn refresh(State(daemon): State<Daemon>) -> Response {
    match daemon.follower.refresh().await {
        Ok(revision) => Json(serde_json::json!({ "revision": revision })).into_response(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
    }
}

async fn backends(State(daemon): State<Daemon>) -> Response {
    match daemon.opinions {
        Some(opinions) => Json(opinions.all()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Debug, Serialize)]
struct Status {
    name: String,
    version: &'static str,
    revision: u64,
    backend: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waking: Option<Load>,
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
    let (mut sites, mut waking) = (Vec::new(), None);
    if let Some(driver) = &daemon.driver {
        let ((answer, asked), (weight, weighed)) = (oneshot::channel(), oneshot::channel());
        if driver.send(Message::Asked(answer)).await.is_ok()
            && driver.send(Message::Weighed(weight)).await.is_ok()
        {
            sites = asked.await.unwrap_or_default();
            waking = weighed.await.ok();
        }
    }
    sites.sort_by_key(|now| now.site);
    Json(Status {
        name: daemon.name,
        version: env!("CARGO_PKG_VERSION"),
        revision: *daemon.follower.revision().borrow(),
        backend: daemon.driver.is_some(),
        waking,
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
