// An Express app as the framework's users write it. Not a module, since NODE_PATH, where tests/run.sh installs packages, is for `require` alone.
'use strict';

const { parseArgs } = require('node:util');
const { RedisStore } = require('connect-redis');
const express = require('express');
const session = require('express-session');
const { createClient } = require('redis');

const { values: options } = parseArgs({
  options: { port: { type: 'string' }, redis: { type: 'string' }, variant: { type: 'string' } },
});
const secrets = { current: ['keyboard cat'], rotated: ['new cat', 'keyboard cat'] }[options.variant];

const client = createClient({ url: options.redis });
client.on('error', (error) => console.error(error));

const app = express();
app.use(session({
  store: new RedisStore({ client }),
  secret: secrets,
  resave: false,
  saveUninitialized: false,
}));

app.get('/', (req, res) => {
  const { cookie, passport, ...keys } = req.session;
  res.json(Object.fromEntries(Object.entries(keys).filter(([key]) => !key.startsWith('_'))));
});

// As Passport stores it.
app.get('/user', (req, res) => res.json(req.session.passport?.user ?? null));

app.post('/set/:key/*value', (req, res) => {
  req.session[req.params.key] = JSON.parse(req.params.value.join('/'));
  res.end();
});

app.post('/remove/:key', (req, res) => {
  delete req.session[req.params.key];
  res.end();
});

// As Passport does it, with `keepSessionInfo`.
app.post('/login/:user', (req, res, next) => {
  const { cookie, ...kept } = req.session;
  req.session.regenerate((error) => {
    if (error) return next(error);
    Object.assign(req.session, kept, { passport: { user: req.params.user } });
    res.end();
  });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((error) => (error ? next(error) : res.end()));
});

app.get('/permanent', (req, res) => res.json(req.session.cookie.originalMaxAge !== null));

app.post('/permanent/:value', (req, res) => {
  // express-session does not store a change of the cookie alone.
  req.session._changes = (req.session._changes ?? 0) + 1;
  req.session.cookie.maxAge = req.params.value === 'true' ? 24 * 60 * 60 * 1000 : null;
  res.end();
});

// What other writers of JSON would write otherwise.
const special = { z: 1e21, a: [1.5e-7, null, '\u00eb\u{1f980}'], big: 2 ** 53 };

app.post('/special', (req, res) => {
  req.session.special = special;
  res.end();
});

app.get('/special', (req, res) => {
  res.json(JSON.stringify(req.session.special) === JSON.stringify(special));
});

client.connect().then(() => {
  const server = app.listen(Number(options.port), '127.0.0.1', () => {
    console.log(`listening on ${server.address().port}`);
  });
});
