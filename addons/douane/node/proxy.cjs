// Preloaded by `douane run` (NODE_OPTIONS=--require) into Node releases that do not read HTTPS_PROXY themselves:
// https before 22.21 / 24.5, fetch before 22.21 / 24.0. Every other runtime and release leaves here at once.
//
// Law: for an https:// destination that NO_PROXY does not name, a socket is a CONNECT tunnel through the proxy or an
// error; there is no falling back to a direct connection. TLS stays end to end, checked by Node as ever.
// It must not throw: an exception here would keep every node program of the shell from starting.
'use strict'

const [major, minor] = process.versions.node.split('.').map(Number)
const native = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21)
const url = process.env.HTTPS_PROXY || process.env.https_proxy || ''

if (!native && !process.versions.bun && !process.versions.deno && url.startsWith('http://')) {
  try {
    install(new URL(url))
  } catch (error) {
    process.emitWarning(`douane: this program's calls will not use the proxy: ${error.message}`)
  }
}

function install (proxy) {
  const http = require('node:http')
  const https = require('node:https')
  const bypassed = (process.env.NO_PROXY || process.env.no_proxy || '').toLowerCase().split(',')
    .map(name => name.trim().replace(/^\*?\./, '')).filter(Boolean)
  const direct = host => bypassed.some(name => name === '*' || host === name || host.endsWith('.' + name))

  // callback(error | null, socket): a TCP stream to host:port on the far side of the proxy.
  function tunnel (host, port, callback) {
    const headers = { host: `${host}:${port}` }
    if (proxy.username) {
      const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
      headers['proxy-authorization'] = 'Basic ' + Buffer.from(credentials).toString('base64')
    }
    const request = http.request({
      host: proxy.hostname.replace(/^\[|\]$/g, ''), port: proxy.port || 80, agent: false,
      method: 'CONNECT', path: `${host}:${port}`, headers
    })
    request.once('error', callback)
    request.once('connect', (response, socket) => {
      request.off('error', callback)
      socket.setTimeout(0)
      if (response.statusCode === 200) return callback(null, socket)
      socket.destroy()
      callback(new Error(`proxy ${proxy.host} answered ${response.statusCode} to CONNECT ${host}:${port}`))
    })
    request.setTimeout(30000, () => request.destroy(new Error(`proxy ${proxy.host} did not answer within 30 s`)))
    request.end()
  }

  const bare = host => String(host).toLowerCase().replace(/^\[|\]$/g, '')
  const authority = host => (host.includes(':') ? `[${host}]` : host)

  // https, and every agent built on it. Agents that tunnel by themselves (https-proxy-agent) do not come by here.
  const connect = https.Agent.prototype.createConnection
  https.Agent.prototype.createConnection = function createConnection (options, callback) {
    const host = bare(options.host || 'localhost')
    if (typeof callback !== 'function' || options.socket || options.socketPath || direct(host)) {
      return connect.call(this, options, callback)
    }
    tunnel(authority(host), options.port || 443, (error, socket) => {
      if (error) return callback(error)
      callback(null, connect.call(this, { ...options, socket }))
    })
  }

  // fetch: undici is inside Node and cannot be imported, but its dispatcher stands under a well-known symbol, and the
  // dispatcher's class takes a `connect` function. undici loads at the first call, and so do we.
  const dispatcher = Symbol.for('undici.globalDispatcher.1')
  const fetch = globalThis.fetch
  if (typeof fetch !== 'function') return
  let ready = false
  function prepare () {
    ready = true
    if (globalThis[dispatcher] === undefined) fetch('data:,').catch(() => {})
    const current = globalThis[dispatcher]
    // Somebody set a dispatcher of their own (a proxy agent, a test's mock): theirs to decide.
    if (!current || current.constructor.name !== 'Agent') return
    const tls = require('node:tls')
    const net = require('node:net')
    globalThis[dispatcher] = new current.constructor({
      connect ({ hostname, protocol, port, servername, httpSocket }, callback) {
        const host = bare(hostname)
        const secure = protocol === 'https:'
        const done = socket => socket.once('error', callback).once(secure ? 'secureConnect' : 'connect', () => {
          socket.off('error', callback)
          callback(null, socket)
        })
        if (!secure) return done(net.connect({ host, port: port || 80, noDelay: true }))
        const shake = socket => done(tls.connect({
          ...(socket ? { socket } : { host, port: port || 443 }),
          servername: servername || (net.isIP(host) ? '' : host), ALPNProtocols: ['http/1.1']
        }))
        if (direct(host)) return shake(httpSocket)
        tunnel(authority(host), port || 443, (error, socket) => error ? callback(error) : shake(socket))
      }
    })
  }
  globalThis.fetch = function (...parameters) {
    if (!ready) prepare()
    return fetch.apply(this, parameters)
  }
}
