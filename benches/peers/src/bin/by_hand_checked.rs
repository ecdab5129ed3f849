use peers::{Failure, apps};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let client = redis::Client::open(apps::redis_url()?)?;
    apps::serve(apps::by_hand::app(client, true).await?).await
}
