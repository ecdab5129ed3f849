//! Credentials that are fetched and valid for a time: open connections are authenticated anew, and no request fails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum_redis_sessions::{Credentials, RedisSessionLayer};

use crate::{
    client::{ask, begin_at},
    support::{app::serve, eventually, server::Server},
    visits::{PATIENT, app},
};

/// Short, so that a test sees several renewals.
const VALID: Duration = Duration::from_secs(1);

/// Issues a token for the users `even` and `odd` in turn, and tells the servers.
#[derive(Clone, Default)]
struct Issuer {
    issued: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
    servers: Arc<Mutex<Vec<u16>>>,
}

impl Issuer {
    fn for_servers<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Self {
        let issuer = Self::default();
        *issuer.servers.lock().expect("no panic") = servers.into_iter().map(Server::port).collect();
        issuer
    }

    async fn issue(
        self,
        valid_for: Option<Duration>,
    ) -> Result<Credentials, Box<dyn std::error::Error + Send + Sync>> {
        let number = self.issued.fetch_add(1, Relaxed) + 1;
        if self.fails.load(Relaxed) {
            return Err("sesame: not an error to be shown".into());
        }
        let user = if number.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        };
        let token = format!("sesame-{number}");
        let ports = self.servers.lock().expect("no panic").clone();
        for port in ports {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut rule = redis::cmd("ACL");
            rule.arg(&["SETUSER", user, "on", "resetpass"])
                .arg(format!(">{token}"));
            rule.arg(&["~*", "+@all"]);
            let _: String = rule.query_async(&mut connection).await?;
        }
        let credentials = Credentials::new(user, token);
        Ok(match valid_for {
            Some(time) => credentials.valid_for(time),
            None => credentials,
        })
    }

    fn layer(&self, layer: RedisSessionLayer, valid_for: Option<Duration>) -> RedisSessionLayer {
        let issuer = self.clone();
        layer.with_credentials_provider(move || issuer.clone().issue(valid_for))
    }

    fn issued(&self) -> u32 {
        self.issued.load(Relaxed)
    }
}

/// The id and the user of each connection of the layer.
async fn clients(server: &Server) -> Vec<(String, String)> {
    let list: String = server.command(&["CLIENT", "LIST"]).await;
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ');
        fields
            .find_map(|field| field.strip_prefix(name).map(str::to_owned))
            .unwrap_or_default()
    };
    let clients = list
        .lines()
        .map(|line| (field(line, "id="), field(line, "user=")));
    clients
        .filter(|(_, user)| user == "even" || user == "odd")
        .collect()
}

#[tokio::test]
async fn an_open_connection_is_authenticated_anew_and_no_request_fails() {
    let server = Server::start().await;
    let issuer = Issuer::for_servers([&server]);
    // Another user than the client's, whose password is wrong.
    let client = redis::Client::open(format!("redis://nobody:wrong@127.0.0.1:{}/", server.port()));
    let layer = issuer.layer(
        RedisSessionLayer::new(client.expect("an address")),
        Some(VALID),
    );
    let app = serve(app(layer.clone())).await;
    let cookie = begin_at(&app, "/").await;
    let first = clients(&server).await;
    assert_eq!(first.len(), 1);
    let mut users = vec![first[0].1.clone()];
    let begun = Instant::now();
    while begun.elapsed() < PATIENT && users.len() < 4 {
        let reply = ask(&app, "/", &[&cookie]).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let now = clients(&server).await;
        assert_eq!(now.len(), 1);
        assert_eq!(now[0].0, first[0].0, "the same connection");
        if users.last() != Some(&now[0].1) {
            users.push(now[0].1.clone());
        }
    }
    assert_eq!(users.len(), 4, "{users:?}");
    assert_eq!(layer.stats().connections_opened, 1);
}

#[tokio::test]
async fn a_failed_renewal_is_tried_again_while_requests_are_served() {
    let server = Server::start().await;
    let issuer = Issuer::for_servers([&server]);
    let layer = issuer.layer(RedisSessionLayer::new(server.client()), Some(VALID));
    let app = serve(app(layer.clone())).await;
    let cookie = begin_at(&app, "/").await;
    let before = clients(&server).await;
    issuer.fails.store(true, Relaxed);
    let issued = issuer.issued();
    eventually(PATIENT, async || {
        assert_eq!(ask(&app, "/", &[&cookie]).await.status, 200);
        issuer.issued() >= issued + 3
    })
    .await;
    issuer.fails.store(false, Relaxed);
    eventually(PATIENT, async || {
        assert_eq!(ask(&app, "/", &[&cookie]).await.status, 200);
        let now = clients(&server).await;
        now[0].0 == before[0].0 && now[0].1 != before[0].1
    })
    .await;
    assert_eq!(layer.stats().connections_opened, 1);
}

#[tokio::test]
async fn without_credentials_requests_are_503_and_the_reason_hides_the_error() {
    let server = Server::start().await;
    let issuer = Issuer::for_servers([&server]);
    issuer.fails.store(true, Relaxed);
    let layer = issuer.layer(RedisSessionLayer::new(server.client()), Some(VALID));
    let app = serve(app(layer.clone())).await;
    let error = layer.ready().await.expect_err("no credentials");
    assert!(
        error
            .to_string()
            .contains("with_credentials_provider returned an error"),
        "{error}"
    );
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("sesame"), "{shown}");
    issuer.fails.store(false, Relaxed);
    eventually(PATIENT, async || {
        ask(&app, "/", &[]).await.status == 200 && layer.ready().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_new_connection_shares_credentials_that_are_valid_and_fetches_others() {
    let server = Server::start().await;
    let hour = Some(Duration::from_secs(3600));
    for (valid_for, fetched_again) in [(hour, 0), (None, 1)] {
        let issuer = Issuer::for_servers([&server]);
        let layer = issuer.layer(RedisSessionLayer::new(server.client()), valid_for);
        layer.ready().await.expect("ready");
        let issued = issuer.issued();
        let _: i64 = server.command(&["CLIENT", "KILL", "USER", "odd"]).await;
        eventually(PATIENT, async || {
            layer.ready().await.is_ok() && layer.stats().connections_opened == 2
        })
        .await;
        assert_eq!(issuer.issued() - issued, fetched_again);
    }
    // Valid for an hour, but refused: new ones are fetched.
    let issuer = Issuer::for_servers([&server]);
    let layer = issuer.layer(RedisSessionLayer::new(server.client()), hour);
    layer.ready().await.expect("ready");
    let _: String = server
        .command(&["ACL", "SETUSER", "odd", "resetpass", ">another-sesame"])
        .await;
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "odd"]).await;
    eventually(PATIENT, async || layer.ready().await.is_ok()).await;
    assert_eq!(issuer.issued(), 2);
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn each_connection_to_a_cluster_is_authenticated_anew() {
    use crate::support::cluster::Cluster;

    let cluster = Cluster::start().await;
    let issuer = Issuer::for_servers(&cluster.nodes);
    let layer = RedisSessionLayer::cluster(cluster.urls()).expect("addresses");
    let layer = issuer.layer(layer.with_deadline(PATIENT), Some(VALID));
    layer.ready().await.expect("ready");
    for node in &cluster.nodes {
        let before = clients(node).await;
        let Some((id, user)) = before.first() else {
            continue; // a replica, which was not asked
        };
        eventually(PATIENT, async || {
            layer.ready().await.expect("ready");
            let now = clients(node).await;
            now.iter().any(|(other, now)| other == id && now != user)
        })
        .await;
    }
    // Shared: not one fetch for each of the connections.
    assert!(issuer.issued() < 20, "{}", issuer.issued());
}

#[cfg(feature = "sentinel")]
#[tokio::test]
async fn the_connection_to_the_master_that_sentinel_names_is_authenticated_anew() {
    use crate::support::sentinels::{NAME, Sentinels};

    let sentinels = Sentinels::start().await;
    let issuer = Issuer::for_servers(&sentinels.servers);
    let layer = RedisSessionLayer::sentinel(NAME, sentinels.addresses(), "redis://master/");
    let layer = issuer.layer(
        layer.expect("addresses").with_deadline(PATIENT),
        Some(VALID),
    );
    layer.ready().await.expect("ready");
    let master = &sentinels.servers[sentinels.master().await.expect("a master")];
    let before = clients(master).await;
    eventually(PATIENT, async || {
        layer.ready().await.expect("ready");
        let now = clients(master).await;
        now.len() == 1 && now[0].0 == before[0].0 && now[0].1 != before[0].1
    })
    .await;
}
