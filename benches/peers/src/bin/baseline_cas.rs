use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        let client = redis::Client::open(apps::redis_url()?)?;
        apps::serve(apps::baseline::app(client, true).await?).await
    })
}
