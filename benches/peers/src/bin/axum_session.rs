use peers::{Failure, apps};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    apps::serve(apps::axum_session::app(&apps::redis_url()?).await?).await
}
