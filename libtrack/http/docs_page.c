/* The page behind /docs: made from the OpenAPI document, whole in itself (no outside resource). */
#include <ctype.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/http/http_internal.h"

#define PAGE_BYTES_MAX (16 << 20)

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:62rem;padding:1rem;"
    "color:#1b1f24;background:#fff}"
    "h1{font-size:1.5rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem;text-transform:capitalize}"
    "details{border:1px solid #d5dae0;border-radius:6px;margin:.35rem 0}"
    "summary{cursor:pointer;padding:.4rem .6rem;display:flex;gap:.7rem;align-items:baseline;"
    "flex-wrap:wrap}"
    "details>div{padding:0 .8rem .8rem}code,pre,input,textarea{font:13px/1.45 ui-monospace,"
    "monospace}pre{background:#f5f7f9;padding:.6rem;overflow:auto;border-radius:4px}"
    ".m{font-weight:700;min-width:4rem}.get{color:#0b66b5}.post{color:#137a3f}.put{color:#9a5b00}"
    ".delete{color:#b3261e}.a{margin-left:auto;color:#57606a;font-size:13px}"
    ".old{text-decoration:line-through}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}"
    "input,textarea{width:100%;box-sizing:border-box}label{display:block;margin:.3rem 0}"
    "button{margin:.4rem 0;padding:.25rem .9rem}"
    "@media(prefers-color-scheme:dark){body{color:#e3e8ee;background:#14181d}"
    "details{border-color:#343b44}pre{background:#1d232a}.get{color:#6cb6ff}.post{color:#6bc88d}"
    ".put{color:#e0a84f}.delete{color:#f28b82}.a{color:#9aa4af}}";

static const char script[] =
    "const base=location.pathname.replace(/\\/(docs)?$/,'');"
    "document.querySelectorAll('form').forEach(f=>f.addEventListener('submit',async e=>{"
    "e.preventDefault();const d=new FormData(f),q=new URLSearchParams();"
    "let p=f.dataset.path;const out=f.querySelector('output');"
    "for(const[k,v]of d){if(k.startsWith('p:'))p=p.replace('{'+k.slice(2)+'}',"
    "encodeURIComponent(v));else if(k.startsWith('q:')&&v!=='')q.set(k.slice(2),v);}"
    "const o={method:f.dataset.method,headers:{}};"
    "const t=document.getElementById('token').value.trim();"
    "if(t)o.headers['X-Racetrack-Auth']=t;"
    "if(d.has('body')){o.body=d.get('body');o.headers['Content-Type']=f.dataset.type;}"
    "const s=q.toString();out.textContent='…';"
    "try{const r=await fetch(base+p+(s?'?'+s:''),o);let b=await r.text();"
    "try{b=JSON.stringify(JSON.parse(b),null,2);}catch(x){}"
    "out.textContent=r.status+' '+r.statusText+'\\n'+b;}catch(x){out.textContent=String(x);}}));";

static void add_text(struct trk_buf *buf, const char *s)
{
    for (; s != NULL && *s != '\0'; s++) {
        const char *entity = *s == '&'    ? "&amp;"
                             : *s == '<'  ? "&lt;"
                             : *s == '>'  ? "&gt;"
                             : *s == '"'  ? "&quot;"
                             : *s == '\'' ? "&#39;"
                                          : NULL;
        if (entity != NULL) {
            (void)trk_buf_adds(buf, entity);
        } else {
            (void)trk_buf_addc(buf, *s);
        }
    }
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

static void add_schema(struct trk_buf *buf, const char *title, const json_t *schema)
{
    if (schema == NULL || json_object_size(schema) == 0) {
        return;
    }
    trk_autofree char *text = json_dumps(schema, JSON_INDENT(2) | JSON_ENCODE_ANY);
    (void)trk_buf_addf(buf, "<h4>%s</h4><pre>", title);
    add_text(buf, text);
    (void)trk_buf_adds(buf, "</pre>");
}

static void add_parameters(struct trk_buf *buf, const json_t *parameters)
{
    size_t i;
    const json_t *parameter;
    if (json_array_size(parameters) == 0) {
        return;
    }
    (void)trk_buf_adds(buf, "<h4>Parameters</h4><table>");
    json_array_foreach (parameters, i, parameter) {
        const json_t *schema = json_object_get(parameter, "schema");
        const json_t *otherwise = json_object_get(schema, "default");
        (void)trk_buf_adds(buf, "<tr><td><code>");
        add_text(buf, text_of(parameter, "name"));
        (void)trk_buf_adds(buf, "</code><td>");
        add_text(buf, text_of(parameter, "in"));
        (void)trk_buf_adds(buf, ", ");
        add_text(buf, text_of(schema, "type"));
        if (otherwise != NULL) {
            trk_autofree char *text = json_dumps(otherwise, JSON_ENCODE_ANY);
            (void)trk_buf_adds(buf, ", default ");
            add_text(buf, text);
        }
        (void)trk_buf_adds(buf, "<td>");
        add_text(buf, text_of(parameter, "description"));
    }
    (void)trk_buf_adds(buf, "</table>");
}

static void add_form(struct trk_buf *buf, const char *method, const char *path,
                     const json_t *parameters, const char *body_type)
{
    size_t i;
    const json_t *parameter;
    (void)trk_buf_addf(buf, "<h4>Try it</h4><form data-method=\"%s\" data-type=\"%s\" data-path=\"",
                       method, body_type == NULL ? "" : body_type);
    add_text(buf, path);
    (void)trk_buf_adds(buf, "\">");
    json_array_foreach (parameters, i, parameter) {
        (void)trk_buf_adds(buf, "<label>");
        add_text(buf, text_of(parameter, "name"));
        (void)trk_buf_addf(buf, "<input name=\"%c:", text_of(parameter, "in")[0]);
        add_text(buf, text_of(parameter, "name"));
        (void)trk_buf_adds(buf, "\"></label>");
    }
    if (body_type != NULL) {
        (void)trk_buf_adds(buf, "<label>body<textarea name=\"body\" rows=\"6\">");
        (void)trk_buf_adds(buf, strstr(body_type, "json") != NULL ? "{}" : "");
        (void)trk_buf_adds(buf, "</textarea></label>");
    }
    (void)trk_buf_adds(buf, "<button>Send</button><pre><output></output></pre></form>");
}

static void add_operation(struct trk_buf *buf, const char *method, const char *path,
                          const json_t *op)
{
    trk_autofree char *upper = trk_xstrdup(method);
    for (char *p = upper; *p != '\0'; p++) {
        *p = (char)toupper((unsigned char)*p);
    }
    bool is_old = json_is_true(json_object_get(op, "deprecated"));
    (void)trk_buf_addf(buf, "<details><summary><span class=\"m %s\">%s</span><code%s>", method,
                       upper, is_old ? " class=\"old\"" : "");
    add_text(buf, path);
    (void)trk_buf_adds(buf, "</code><span>");
    add_text(buf, text_of(op, "summary"));
    (void)trk_buf_adds(buf, "</span><span class=\"a\">");
    add_text(buf, text_of(op, "x-access"));
    (void)trk_buf_adds(buf, "</span></summary><div>");
    const json_t *parameters = json_object_get(op, "parameters");
    add_parameters(buf, parameters);
    json_t *content = json_object_get(json_object_get(op, "requestBody"), "content");
    const char *type = json_object_iter_key(json_object_iter(content));
    add_schema(buf, "Request body", json_object_get(json_object_get(content, type), "schema"));
    const json_t *success = json_object_get(json_object_get(op, "responses"), "200");
    const json_t *answer = json_object_get(json_object_get(success, "content"), "application/json");
    add_schema(buf, "Answer", json_object_get(answer, "schema"));
    add_form(buf, upper, path, parameters, type);
    (void)trk_buf_adds(buf, "</div></details>");
}

static bool has_tag(const json_t *op, const char *tag)
{
    const char *own = json_string_value(json_array_get(json_object_get(op, "tags"), 0));
    return own != NULL && strcmp(own, tag) == 0;
}

static void add_tag(struct trk_buf *buf, const json_t *openapi, const char *tag)
{
    const char *path;
    const char *method;
    json_t *item;
    json_t *op;
    (void)trk_buf_adds(buf, "<h2>");
    add_text(buf, tag);
    (void)trk_buf_adds(buf, "</h2>");
    json_t *paths = json_object_get(openapi, "paths");
    json_object_foreach (paths, path, item) {
        json_object_foreach (item, method, op) {
            if (has_tag(op, tag)) {
                add_operation(buf, method, path, op);
            }
        }
    }
}

static void add_components(struct trk_buf *buf, const json_t *openapi)
{
    const char *name;
    json_t *schema;
    json_t *schemas = json_object_get(json_object_get(openapi, "components"), "schemas");
    (void)trk_buf_adds(buf, "<h2>Schemas</h2>");
    json_object_foreach (schemas, name, schema) {
        trk_autofree char *text = json_dumps(schema, JSON_INDENT(2));
        (void)trk_buf_adds(buf, "<details><summary><code>");
        add_text(buf, name);
        (void)trk_buf_adds(buf, "</code></summary><div><pre>");
        add_text(buf, text);
        (void)trk_buf_adds(buf, "</pre></div></details>");
    }
}

/* 'sha256-…' of an inline element (W3C CSP3 §6.7.3.3). */
static void add_hash(struct trk_buf *buf, const char *text)
{
    unsigned char digest[TRK_SHA256_SIZE];
    trk_sha256(text, strlen(text), digest);
    (void)trk_buf_adds(buf, "'sha256-");
    (void)trk_base64_encode(buf, digest, sizeof(digest));
    (void)trk_buf_addc(buf, '\'');
}

char *http_docs_page(const json_t *openapi, char **ret_policy)
{
    const json_t *info = json_object_get(openapi, "info");
    struct trk_buf buf;
    trk_buf_init(&buf, PAGE_BYTES_MAX);
    (void)trk_buf_adds(&buf, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
                             "<meta name=\"viewport\" content=\"width=device-width\"><title>");
    add_text(&buf, text_of(info, "title"));
    (void)trk_buf_addf(&buf, "</title><style>%s</style><h1>", style);
    add_text(&buf, text_of(info, "title"));
    (void)trk_buf_adds(&buf, " <small>");
    add_text(&buf, text_of(info, "version"));
    (void)trk_buf_adds(&buf, "</small></h1><p>The same as a document for programs: "
                             "<a href=\"openapi.json\">openapi.json</a>. The rule at the right of "
                             "a line says who may call it.</p><label>Token, sent as "
                             "<code>X-Racetrack-Auth</code> <input id=\"token\" type=\"password\" "
                             "autocomplete=\"off\"></label>");
    size_t i;
    const json_t *tag;
    json_array_foreach (json_object_get(openapi, "tags"), i, tag) {
        add_tag(&buf, openapi, text_of(tag, "name"));
    }
    add_components(&buf, openapi);
    (void)trk_buf_addf(&buf, "<script>%s</script></html>\n", script);
    trk_assert(!buf.failed);

    struct trk_buf policy;
    trk_buf_init(&policy, 1024);
    (void)trk_buf_adds(&policy, "default-src 'none'; style-src ");
    add_hash(&policy, style);
    (void)trk_buf_adds(&policy, "; script-src ");
    add_hash(&policy, script);
    (void)trk_buf_adds(&policy, "; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                                "frame-ancestors 'none'");
    *ret_policy = trk_buf_steal(&policy, NULL);
    return trk_buf_steal(&buf, NULL);
}
