package gz
import ("testing";"bytes";"os";"io";stdgzip "compress/gzip";kg "github.com/klauspost/compress/gzip";"crypto/sha256";"github.com/klauspost/compress/zstd")
var data,_ = os.ReadFile("/work/main/bin/tranter")
func comp(l int, k bool) []byte { var b bytes.Buffer; var w io.WriteCloser; if k { w,_=kg.NewWriterLevel(&b,l)} else { w,_=stdgzip.NewWriterLevel(&b,l)}; w.Write(data); w.Close(); return b.Bytes()}
func BenchmarkGz(b *testing.B){ for _,k:=range []bool{false,true}{ for _,l:=range []int{1,3,5,6,9}{ n:="std"; if k {n="klauspost"}
 b.Run(n+string(rune('0'+l)),func(b *testing.B){ for b.Loop(){ b.ReportMetric(float64(len(comp(l,k)))/1e6,"MB")}})
 c:=comp(l,k); b.Run("gunzip-"+n+string(rune('0'+l)),func(b *testing.B){ for b.Loop(){ r,_:=stdgzip.NewReader(bytes.NewReader(c)); io.Copy(io.Discard,r)}})}}
 b.Run("zstd1",func(b *testing.B){ for b.Loop(){ var o bytes.Buffer; w,_:=zstd.NewWriter(&o,zstd.WithEncoderLevel(zstd.SpeedFastest),zstd.WithEncoderConcurrency(1)); w.Write(data); w.Close(); b.ReportMetric(float64(o.Len())/1e6,"MB")}})
 b.Run("sha",func(b *testing.B){ for b.Loop(){ sha256.Sum256(data)}})
}
