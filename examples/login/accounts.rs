//! Who may sign in. Kept in this process's memory, in place of an app's database: accounts end with it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use argon2::{
    Argon2, PasswordHasher, PasswordVerifier,
    password_hash::{Error, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task};

#[derive(Clone)]
pub(crate) struct Accounts(Arc<Inner>);

struct Inner {
    users: Mutex<Vec<User>>,
    /// A hash that no password has, to be checked when there is no user of the name that was given.
    nobody: String,
    /// Each hash takes 19 MiB and a core, so only as many as there are cores run at a time. The others wait.
    hashing: Semaphore,
}

#[derive(Clone)]
pub(crate) struct User {
    /// What sessions know the user by. It is never given to anyone else, unlike a name, and unlike a number that is counted
    /// anew with each start while sessions in Redis live on.
    pub(crate) id: String,
    pub(crate) name: String,
    password_hash: String,
}

/// What is wrong with what somebody signed up with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Name,
    NameTaken,
    Password,
}

/// NIST 800-63B and ASVS 5.0 (6.2.1): at least 8 characters, whichever, and no needless maximum.
pub(crate) const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=256;
pub(crate) const NAME_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=40;

impl Accounts {
    pub(crate) fn new() -> Result<Self, Error> {
        let random: String = (0..4).map(|_| random()).collect::<Result<_, _>>()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            users: Mutex::default(),
            nobody: hash(&random)?,
            hashing: Semaphore::new(cores),
        })))
    }

    pub(crate) async fn sign_up(
        &self,
        name: &str,
        password: String,
    ) -> Result<Result<User, Refused>, Error> {
        let name = name.trim();
        if !NAME_CHARACTERS.contains(&name.chars().count()) {
            return Ok(Err(Refused::Name));
        }
        if !PASSWORD_CHARACTERS.contains(&password.chars().count()) {
            return Ok(Err(Refused::Password));
        }
        if self.find(|user| is_same(&user.name, name)).is_some() {
            return Ok(Err(Refused::NameTaken));
        }
        let user = User {
            id: random()?,
            name: name.to_owned(),
            password_hash: self.on_a_core(move || hash(&password)).await?,
        };
        let mut users = self.users();
        // Somebody else may have been faster while the password was hashed.
        if users.iter().any(|other| is_same(&other.name, name)) {
            return Ok(Err(Refused::NameTaken));
        }
        users.push(user.clone());
        Ok(Ok(user))
    }

    /// The user whose name and password these are. It takes as long for a name that nobody has, or the time would tell which
    /// names there are.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: String,
    ) -> Result<Option<User>, Error> {
        let user = self.find(|user| is_same(&user.name, name.trim()));
        let hash = user
            .as_ref()
            .map_or(&self.0.nobody, |user| &user.password_hash)
            .clone();
        let is_right = self
            .on_a_core(move || {
                let hash = PasswordHash::new(&hash)?;
                match Argon2::default().verify_password(password.as_bytes(), &hash) {
                    Ok(()) => Ok(true),
                    Err(Error::PasswordInvalid) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(user.filter(|_| is_right))
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<User> {
        self.find(|user| user.id == id)
    }

    fn find(&self, is_it: impl Fn(&User) -> bool) -> Option<User> {
        self.users().iter().find(|user| is_it(user)).cloned()
    }

    fn users(&self) -> MutexGuard<'_, Vec<User>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a thread where it holds up no other request.
    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.0.hashing.acquire().await.expect("never closed");
        task::spawn_blocking(work).await.expect("no panic")
    }
}

fn hash(password: &str) -> Result<String, Error> {
    // Argon2id with 19 MiB and two passes, which OWASP's cheat sheet on password storage asks for.
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
}

fn random() -> Result<String, Error> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

fn is_same(name: &str, other: &str) -> bool {
    name.to_lowercase() == other.to_lowercase()
}
