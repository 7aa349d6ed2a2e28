// Search without a server: browsers run no worker from file://, so an iframe, which may load a file, takes its part.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const scope = this.frame.contentWindow, page = this.frame.contentDocument
      // what the script of a worker has: messages to the page, and scripts loaded by name
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      scope.importScripts = (...urls) =>
        urls.reduce((before, next) => before.then(() => load(page, next)), Promise.resolve())
      load(page, url).then(() => {
        this.deliver = data => scope.dispatchEvent(new scope.MessageEvent("message", { data }))
        this.waiting.splice(0).forEach(this.deliver)
      })
    }
    postMessage(data) {
      if (this.deliver) this.deliver(data)
      else this.waiting.push(data)
    }
    addEventListener(...given) { super.addEventListener(...given) }
    set onmessage(hear) { this.addEventListener("message", hear) }
    terminate() { this.frame.remove() }
  }

function load(page, url) {
  return new Promise((done, failed) => {
    const script = page.createElement("script")
    Object.assign(script, { src: url, onload: done, onerror: failed })
    page.body.appendChild(script)
  })
}
