// pulumi-resource-rabbitmq for the tests: the RabbitMQ provider's own source, behind the bridge that the released
// plugin uses. It has the names and the version that the Python package pulumi-rabbitmq asks for.
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	shim "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/terraform-providers/terraform-provider-rabbitmq/rabbitmq"
)

const (
	name    = "rabbitmq"
	version = "3.5.3"
	// Names in programs are not checked against a schema, so the least of one does.
	schema = `{"name":"` + name + `","version":"` + version + `"}`
)

func main() {
	info := tfbridge.ProviderInfo{
		P:       shim.NewProvider(rabbitmq.Provider()),
		Name:    name,
		Version: version,
		Resources: map[string]*tfbridge.ResourceInfo{
			"rabbitmq_vhost": {Tok: "rabbitmq:index/vHost:VHost"},
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"rabbitmq_vhost": {Tok: "rabbitmq:index/getVHost:getVHost"},
		},
	}
	info.MustComputeTokens(tokens.SingleModule("rabbitmq_", "index", tokens.MakeStandard(name)))
	tfbridge.Main(name, version, info, []byte(schema))
}
