use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        let client = redis::Client::open(apps::redis_url()?)?;
        apps::serve(apps::baseline_typed::app(client).await?).await
    })
}
