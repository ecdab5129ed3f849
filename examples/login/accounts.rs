//! User accounts, in memory. An application has a database instead.

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
    /// The hash of a random password. It is verified for unknown names, so that they take the same time.
    dummy_hash: String,
    /// Each hash takes 19 MiB and a core, so at most one per core runs at a time.
    hashing: Semaphore,
}

#[derive(Clone)]
pub(crate) struct User {
    /// The user's id in sessions. Never reused: a name can be, and so can a counter that restarts with this process while sessions stay
    /// in Redis.
    pub(crate) id: String,
    pub(crate) name: String,
    password_hash: String,
}

/// Why a sign-up was rejected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidSignUp {
    Name,
    NameTaken,
    Password,
}

/// NIST 800-63B and ASVS 5.0 (6.2.1): at least 8 characters of any kind. The maximum bounds the cost of hashing.
pub(crate) const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=256;
pub(crate) const NAME_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=40;

impl Accounts {
    pub(crate) fn new() -> Result<Self, Error> {
        let random: String = (0..4).map(|_| random()).collect::<Result<_, _>>()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            users: Mutex::default(),
            dummy_hash: hash(&random)?,
            hashing: Semaphore::new(cores),
        })))
    }

    pub(crate) async fn sign_up(
        &self,
        name: &str,
        password: String,
    ) -> Result<Result<User, InvalidSignUp>, Error> {
        let name = name.trim();
        if !NAME_CHARACTERS.contains(&name.chars().count()) {
            return Ok(Err(InvalidSignUp::Name));
        }
        if !PASSWORD_CHARACTERS.contains(&password.chars().count()) {
            return Ok(Err(InvalidSignUp::Password));
        }
        if self.find(|user| is_same(&user.name, name)).is_some() {
            return Ok(Err(InvalidSignUp::NameTaken));
        }
        let user = User {
            id: random()?,
            name: name.to_owned(),
            password_hash: self.on_blocking_thread(move || hash(&password)).await?,
        };
        let mut users = self.users();
        // Another sign-up may have taken the name while the password was hashed.
        if users.iter().any(|other| is_same(&other.name, name)) {
            return Ok(Err(InvalidSignUp::NameTaken));
        }
        users.push(user.clone());
        Ok(Ok(user))
    }

    /// The user with this name and password. An unknown name takes the same time, so names cannot be enumerated.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: String,
    ) -> Result<Option<User>, Error> {
        let user = self.find(|user| is_same(&user.name, name.trim()));
        let hash = user
            .as_ref()
            .map_or(&self.0.dummy_hash, |user| &user.password_hash)
            .clone();
        let is_correct = self
            .on_blocking_thread(move || {
                let hash = PasswordHash::new(&hash)?;
                match Argon2::default().verify_password(password.as_bytes(), &hash) {
                    Ok(()) => Ok(true),
                    Err(Error::PasswordInvalid) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await?;
        Ok(user.filter(|_| is_correct))
    }

    pub(crate) fn delete(&self, id: &str) {
        self.users().retain(|user| user.id != id);
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

    /// Runs `work` on a blocking thread, so that it does not delay other requests.
    async fn on_blocking_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _permit = self.0.hashing.acquire().await.expect("never closed");
        task::spawn_blocking(work).await.expect("no panic")
    }
}

fn hash(password: &str) -> Result<String, Error> {
    // Argon2id with 19 MiB and two passes, as in OWASP's Password Storage Cheat Sheet.
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
