import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { download, downloads, extent, flow, histogram, Newest, now, search, whenOver } from './api'

describe('downloads', () => {
  it('are of everything that matches, in every format', () => {
    const links = downloads('flows', { q: 'port == 53', from: '-1h', to: 'now' }, null)
    expect(links.map(([name]) => name)).toEqual(['Flows as CSV', 'Flows as JSON lines', 'Flows as Parquet', 'Flows as IPFIX', 'Packets as pcapng'])
    expect(links[3]?.[1]).toBe('/api/v1/flows/export?q=port+%3D%3D+53&from=-1h&to=now&format=ipfix')
    expect(links[4]?.[1]).toBe('/api/v1/pcap?q=port+%3D%3D+53&from=-1h&to=now')
  })

  it('are also of groups, and of transactions where there is such', () => {
    const links = downloads('transactions', { q: '' }, { name: 'Groups', q: '| count by app' })
    expect(links.map(([name]) => name)).toEqual(['Groups as CSV', 'Transactions as CSV', 'Transactions as JSON lines', 'Transactions as Parquet'])
    expect(links[0]?.[1]).toBe('/api/v1/transactions/aggregate?q=%7C+count+by+app&format=csv')
  })
})

describe('all that is kept', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('may be later than now', async () => {
    const asked: string[] = []
    const rows = [{ first: '2026-03-01T00:00:00.000000000Z', last: '2100-01-01T00:00:00.500000000Z' }]
    vi.stubGlobal('fetch', async (path: string) => asked.push(path) && new Response(JSON.stringify({ rows })))
    expect(await extent('flows', { q: 'port == 53', from: '-1h', to: 'now' })).toEqual({ from: rows[0]?.first, to: '2100-01-01T00:00:00.500000001Z' })
    expect(asked).toHaveLength(1)
    expect(new URLSearchParams(asked[0]?.split('?')[1]).get('to')).toBe('2262-04-11')
  })
})

describe('a newer question', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('ends the one before, and its further requests', async () => {
    const answers = (_: string, { signal }: RequestInit) =>
      new Promise<Response>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    vi.stubGlobal('fetch', answers)
    const questions = new Newest()
    const first = questions.next()
    const page = search('flows', {}, questions.signal)
    const second = questions.next()
    await expect(page).rejects.toThrow()
    expect([first.aborted, second.aborted]).toEqual([true, false])
    questions.end()
    expect(second.aborted).toBe(true)
  })
})

describe('a session that is over', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('is told wherever it is found out', async () => {
    const over = vi.fn()
    whenOver(over)
    vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ error: { message: 'not authenticated' } }), { status: 401 }))
    await expect(flow('1')).rejects.toThrow('not authenticated')
    expect(over).toHaveBeenCalledOnce()
  })
})

describe('a download', () => {
  const clicked: string[] = []
  const link = (href: string) => ({ href, download: '' }) as HTMLAnchorElement

  beforeEach(() => {
    clicked.length = 0
    vi.stubGlobal('document', { createElement: () => ({ click(this: { href: string }) { clicked.push(this.href) } }) })
  })
  afterEach(() => vi.unstubAllGlobals())

  it('is begun once, by the browser, after a question that begins nothing', async () => {
    const asked: (string | undefined)[] = []
    vi.stubGlobal('fetch', async (_: string, init?: RequestInit) => asked.push(init?.method) && new Response())
    await download(link('http://appliance/api/v1/flows/export?format=csv'))
    expect([asked, clicked]).toEqual([['HEAD'], ['http://appliance/api/v1/flows/export?format=csv']])
  })

  it('says why there is none', async () => {
    const body = (method?: string) => (method === 'HEAD' ? null : JSON.stringify({ error: { message: 'too many downloads' } }))
    vi.stubGlobal('fetch', async (_: string, init?: RequestInit) => new Response(body(init?.method), { status: 503 }))
    await expect(download(link('http://appliance/api/v1/pcap?'))).rejects.toThrow('too many downloads')
    expect(clicked).toEqual([])
  })

  it('of groups is what was worked out, and not worked out again', async () => {
    const asked: string[] = []
    vi.stubGlobal('fetch', async (path: string) => asked.push(path) && new Response('app,count'))
    await download(link('http://appliance/api/v1/flows/aggregate?format=csv'))
    expect(asked).toHaveLength(1)
    expect(clicked).toEqual([expect.stringMatching(/^blob:/)])
  })
})

describe('the appliance', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('says what bars lack, and how late it is', async () => {
    const completeness = { complete: false }
    const buckets = [{ start: '', flows: 2, client_bytes: 1, server_bytes: 2, ambiguous_ends: 0, unnamed_ends: 1 }]
    const date = new Date(Date.now() + 26 * 3_600_000)
    vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ buckets, completeness }), { headers: { date: date.toUTCString() } }))
    expect(await histogram('flows', {})).toEqual({ buckets: [{ start: '', rows: 2, bytes: 3, ambiguous_ends: 0, unnamed_ends: 1 }], completeness })
    expect(Math.abs(now() - date.getTime())).toBeLessThan(2000)
  })
})
