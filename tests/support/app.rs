use std::net::SocketAddr;

use axum::Router;
use tokio::task::JoinHandle;

use super::secrets;

/// An app that is served until this value is dropped.
pub struct Address {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Serves `app` on a free port.
pub async fn serve(app: Router) -> Address {
    secrets::watch();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
    Address { address, task }
}

impl Address {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            secrets::assert_none_logged();
        }
    }
}
