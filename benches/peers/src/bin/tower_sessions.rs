use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async { apps::serve(apps::tower_sessions::app(&apps::redis_url()?).await?).await })
}
